"""Who reads and decodes images, beside the thread that asks for them."""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from egapipe.pipeline.errors import MachineError

if TYPE_CHECKING:
    # A process that decodes starts sooner without what these import.
    from egapipe.pipeline.store import Failure
    from egapipe.stages.extract.teachers import Pixels

_LOOKS = 4
"""Times that is looked within what a row may take."""


class Decoded(NamedTuple):
    """Rows that were tried. seconds: of one thread or process. digests: row -> SHA-256 of the bytes
    of its image, 32 of them; a row of which none could be read has none."""

    failures: "list[Failure]"
    seconds: float
    digests: Mapping[int, bytes] = {}


def together(parts: Sequence[Decoded]) -> Decoded:
    """Of several what is known of all their rows."""
    failures = [failure for part in parts for failure in part.failures]
    digests = {row: digest for part in parts for row, digest in part.digests.items()}
    return Decoded(failures, sum(part.seconds for part in parts), digests)


class RowReader(Protocol):
    """Reads one row of a data set; can be pickled."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all views of a row, V first."""
        ...

    def key(self, row: int) -> str:
        """The stable id of a row."""
        ...

    def read(self, row: int, slots: "Sequence[Pixels]") -> Decoded:
        """Fill V slots; with zeros if the image cannot be read."""
        ...

    def extents(self, rows: Sequence[int]) -> Any:
        """What a copy of it in another process must `learn` before it reads some rows."""
        ...

    def learn(self, extents: Any) -> None:
        """Be told by `extents`."""
        ...


class Task(NamedTuple):
    """A row, and where its V views belong."""

    row: int
    slots: "Sequence[Pixels]"


class Limits(NamedTuple):
    """What one row may take before it counts as harmful.

    seconds: to be read, decoded and resized. memory: bytes that it may add to a process of its own;
    threads share theirs, and are not bounded by it.
    """

    seconds: float = 120.0
    memory: int = 4 * 2**30


LIMITS = Limits()


class HungError(MachineError):
    """A row takes longer than it may, in a thread that nothing can stop: its process has to end."""

    row: int | None = None


class Crew(Protocol):
    """Decodes rows beside the thread that asks for them."""

    decoded: int
    """Grows with the rows that were decoded, or tried."""

    def begin(self, tasks: Sequence[Task]) -> list[Future[Decoded]]:
        """Start on some rows; when all futures are done, their slots are filled.

        The futures raise UsageError if whoever decodes cannot be started.
        """
        ...

    def check(self) -> None:
        """Raise HungError if a row takes longer than it may and its decoder cannot be replaced."""
        ...

    def close(self) -> None:
        """Stop; what is not begun is dropped."""
        ...


def look_seconds(limit: float) -> float:
    """How often to look whether something has passed a limit of so many seconds."""
    return min(1.0, limit / _LOOKS)


def awaited(future: Future[Decoded], crew: Crew, limits: Limits) -> Decoded:
    """A future's result; raises what it raises, and HungError if none is to be expected."""
    look = look_seconds(limits.seconds)
    while True:
        try:
            return future.result(timeout=look)
        except TimeoutError:
            if future.done():
                # Its own: what is read has a time limit, too.
                return future.result()
            crew.check()


class Watch:
    """Since when something is at the same point."""

    def __init__(self) -> None:
        self._point: object = None
        self._since = time.monotonic()

    def seconds(self, point: object) -> float:
        """Since the point was last another one."""
        if point != self._point:
            self._point, self._since = point, time.monotonic()
        return time.monotonic() - self._since
