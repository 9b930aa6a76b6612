"""The memory that a worker takes, by bytes: of its shard, what is ahead of it, and the passes."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from rich.filesize import decimal

from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.machine.memory import resident_bytes, return_free_memory
from egapipe.pipeline.machine.repeated import repeated
from egapipe.pipeline.store import Manifest
from egapipe.pipeline.store.format.dtypes import NUMPY
from egapipe.stages.extract.decoding.decode import ahead
from egapipe.stages.extract.decoding.decoders import Decoders
from egapipe.stages.extract.teachers import Teacher
from egapipe.stages.extract.teachers.undecoded import Undecoded

# A shard is written while the next one is encoded.
_FLOATS = 2 * 4
# The rest of a machine's memory is for the system and the cache of its files.
_USABLE = 0.9
_UNKNOWN = 1e18
# A shard as it is stored, as the bytes that are sent, and as they are read back.
_COPIES = 3
# What a decoding process holds by itself: 40 MB were measured for a folder, tables take more.
_CHILD_BYTES = 100 << 20
_PROBE_IMAGES = 4
_LOOK_SECONDS = 0.002


@dataclass(frozen=True)
class WorkerMemory:
    """Bytes of one worker at its fullest.

    process: with the teacher loaded. images: decoded ahead of it and being decoded. one_pass: of
    one forward pass, of which there are `passes` at once. shard: its embeddings, and their copies
    while they are written.
    """

    process: int
    images: int
    shard: int
    one_pass: int
    passes: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.process + self.images + self.shard + self.passes * self.one_pass

    @property
    def words(self) -> str:
        """What takes how much."""
        return (
            f"{decimal(self.total)} of memory (process and teacher {decimal(self.process)}, images "
            f"{decimal(self.images)}, shard {decimal(self.shard)}, {self.passes} passes at once "
            f"{decimal(self.passes * self.one_pass)})"
        )

    def within(self, room: int, where: str) -> "WorkerMemory":
        """With as many passes at once as have room. Raises UsageError if not even one has.

        where: the machine, in words.
        """
        left = room - (self.total - self.passes * self.one_pass)
        if left < self.one_pass:
            raise UsageError(
                f"a worker needs {replace(self, passes=1).words}, {where} has {decimal(room)} for "
                "it: set extract.batch_size lower, store.shard_rows of a new store lower, or use a "
                "machine with more"
            )
        fitting = left // self.one_pass if self.one_pass else self.passes
        return replace(self, passes=min(self.passes, fitting))


def room_of(machine: float, share: float) -> int:
    """Bytes for a worker that has a share of a machine, whose memory may not be known (inf)."""
    return int(min(_USABLE * machine * share, _UNKNOWN))


def worker_memory(
    teacher: Teacher,
    manifest: Manifest,
    decoders: Decoders,
    device: torch.device,
    cores: int,
    batch_size: int,
) -> WorkerMemory:
    """What a worker will take in host memory; its teacher is in this process, on the CPU.

    cores: forward passes at once, on the CPU; on a GPU a pass takes none of it. batch_size: views
    in one pass. An image of many megapixels is there for a moment beside all that.
    """
    on_gpu = device.type != "cpu"
    batch = batch_size * math.prod(teacher.preprocessing.shape)
    images = (ahead(batch) + cores) * batch
    if decoders.by == "processes":
        # Shared memory for what is ahead, beside the batches themselves.
        images += ahead(batch) * batch + decoders.number * _CHILD_BYTES
    rows = min(manifest.shard_rows, manifest.rows)
    numbers = rows * manifest.view_count * sum(map(math.prod, manifest.outputs.values()))
    return WorkerMemory(
        process=resident_bytes(),
        images=images,
        shard=numbers * (_FLOATS + _COPIES * NUMPY[manifest.dtype].itemsize),
        one_pass=0 if on_gpu else pass_bytes(teacher, batch_size) + _decoding(teacher, batch),
        passes=cores,
    )


def _decoding(teacher: Teacher, batch: int) -> int:
    """Of images that are left to the device: they, and the squares that they go into, see `Jpegs`.
    Those that are larger than the squares are there for a moment beside that."""
    return 2 * batch if isinstance(teacher.preprocessing, Undecoded) else 0


def pass_bytes(teacher: Teacher, batch_size: int) -> int:
    """Bytes that one forward pass takes on the CPU at its fullest, measured on a few images."""
    # Compiled code is for whole batches.
    count = batch_size if teacher.spec.get("compiled") else min(_PROBE_IMAGES, batch_size)
    pixels = torch.zeros((count, *teacher.preprocessing.shape), dtype=torch.uint8)
    # What is made once is not counted for each.
    teacher.forward(pixels[:1])
    return_free_memory()
    with _highest() as seen:
        teacher.forward(pixels)
    return (max(seen) - seen[0]) * batch_size // count


@contextmanager
def _highest() -> Iterator[list[int]]:
    """Bytes of this process at the start of a block, and as they were seen in it."""
    seen = [resident_bytes()]
    with repeated(lambda: seen.append(resident_bytes()), _LOOK_SECONDS, "look-at-memory"):
        yield seen
