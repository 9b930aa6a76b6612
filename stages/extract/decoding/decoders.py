"""Who decodes beside a teacher, and how many of them: by the cores of a worker."""

from typing import NamedTuple

from egapipe.pipeline.config.extract import DecodeBy, ExtractConfig

MOST_THREADS = 8
"""Beyond so many, threads would wait for each other: of a photograph's time one part in 20 is the
interpreter's, which one thread has at a time (`egapipe bench decoding`)."""

_LEAST = 2
# An isolated shard is a rare one: processes for it are started and ended.
_ISOLATED = 4


class Decoders(NamedTuple):
    """So many threads, or processes."""

    by: DecodeBy
    number: int

    @property
    def isolated(self) -> "Decoders":
        """Those of a shard with an image that does harm."""
        return Decoders("processes", min(self.number, _ISOLATED))


def decoders_for(settings: ExtractConfig, cores: int, *, own_process: bool) -> Decoders:
    """What was asked for, else as many as a worker has cores; in processes where those are many.

    cores: of the worker's share of its machine. A decoder that is ahead of the teacher waits, and
    takes none. own_process: whether nobody else's code runs in the worker's process: a script that
    extracts by itself may not survive that processes are started from it.
    """
    number, by = settings.decode_threads, settings.decode
    if by == "auto":
        many = (number or cores) > MOST_THREADS
        by = "processes" if many and own_process else "threads"
    if number is None:
        number = max(_LEAST, cores if by == "processes" else min(cores, MOST_THREADS))
    return Decoders(by, number)
