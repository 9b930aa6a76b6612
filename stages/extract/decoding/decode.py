"""Images of a shard as batches of views, read and decoded ahead of the teacher."""

import math
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from egapipe.pipeline.config.extract import DecodeBy
from egapipe.pipeline.store import Failure
from egapipe.stages.extract.decoding.crew import LIMITS, Crew, Decoded, Limits, Task, awaited
from egapipe.stages.extract.decoding.processes import Processes
from egapipe.stages.extract.decoding.reader import Reader
from egapipe.stages.extract.decoding.threads import Threads
from egapipe.stages.extract.teachers.preprocessing import Pixels

# Batches being decoded or waiting for the teacher: enough that a slow image does not stop it.
AHEAD = 4
# So many bytes of them: batches of large pixels are fewer.
_AHEAD_BYTES = 1 << 28


def ahead(batch_bytes: int) -> int:
    """Batches of so many bytes that are decoded, or wait, ahead of the teacher."""
    return max(2, min(AHEAD, _AHEAD_BYTES // max(1, batch_bytes)))


class Batch(NamedTuple):
    """Consecutive views of a shard: view v of its r-th row has position r * V + v."""

    pixels: Tensor
    """uint8 [B, *shape], of the teacher's preprocessing; zeros where the image cannot be read."""
    start: int
    """Position of the first view."""


class ShardImages:
    """The images of one shard, decoded in the order the teacher needs them.

    The composition of batches is a function of the shard and the batch size alone, so that no
    embedding depends on who computed it.
    """

    def __init__(
        self,
        reader: Reader,
        rows: range,
        batch_size: int,
        pinned: bool,
        limits: Limits = LIMITS,
    ) -> None:
        self.rows = rows
        self.view_count = len(rows) * reader.view_count
        self.batch_count = -(-self.view_count // batch_size)
        self.failures: list[Failure] = []
        self._failing = threading.Lock()
        self.digests: dict[int, bytes] = {}
        """Row -> SHA-256 of its image's bytes, of the batches taken so far."""
        self.seconds = 0.0
        """Seconds that all threads or processes together spent on the images so far."""
        self._reader = reader
        self._batch_size = batch_size
        self._pinned = pinned
        self._limits = limits
        self._buffers: dict[int, Tensor] = {}
        self._decoding: list[tuple[Crew, list[Future[Decoded]]]] = []
        self._begun = 0
        self._taken = 0

    @property
    def waiting(self) -> int:
        """Batches begun and not yet taken."""
        return self._begun - self._taken

    @property
    def all_begun(self) -> bool:
        """Whether every batch is being decoded or was taken."""
        return self._begun == self.batch_count

    def begin(self, crew: Crew) -> None:
        """Start decoding the next batch: the rows whose first view is in it."""
        rows = range(self._first_row(self._begun), self._first_row(self._begun + 1))
        tasks = [Task(self.rows[r], self._slots(r)) for r in rows]
        self._decoding.append((crew, crew.begin(tasks)))
        self._begun += 1

    def take(self) -> Batch:
        """Wait for the next of the batches that were begun.

        Raises HungError if a thread is stuck in an image.
        """
        # A row whose views reach into this batch from the one before was waited for there.
        number, self._taken = self._taken, self._taken + 1
        crew, futures = self._decoding[number]
        for future in futures:
            decoded = awaited(future, crew, self._limits)
            self.seconds += decoded.seconds
            self.failures += decoded.failures
            self.digests |= decoded.digests
        return Batch(self._buffers.pop(number), number * self._batch_size)

    def lost(self, batch: Batch, position: int, reason: str) -> None:
        """The image of a view in a batch that was taken has turned out to be damaged."""
        row = self.rows[(batch.start + position) // self._reader.view_count]
        failure = Failure(row, self._reader.key(row), reason)
        # Of several views, or threads, one says it first.
        with self._failing:
            if failure not in self.failures:
                self.failures.append(failure)

    def cancel(self) -> None:
        """Forget what is not decoded yet."""
        for future in chain.from_iterable(futures for _, futures in self._decoding):
            future.cancel()

    def _first_row(self, batch: int) -> int:
        """The first row that begins in a batch or after it."""
        position = min(batch * self._batch_size, self.view_count)
        return -(-position // self._reader.view_count)

    def _slots(self, row: int) -> list[Pixels]:
        start = row * self._reader.view_count
        positions = range(start, start + self._reader.view_count)
        return [self._buffer(p // self._batch_size)[p % self._batch_size] for p in positions]

    def _buffer(self, batch: int) -> Pixels:
        if batch not in self._buffers:
            size = min(self._batch_size, self.view_count - batch * self._batch_size)
            shape = (size, *self._reader.preprocessing.shape)
            self._buffers[batch] = torch.empty(shape, dtype=torch.uint8, pin_memory=self._pinned)
        return self._buffers[batch].numpy()


class Decoder:
    """A crew that keeps a few batches ahead of the teacher, over the borders of shards."""

    def __init__(
        self,
        reader: Reader,
        batch_size: int,
        threads: int,
        pinned: bool,
        by: DecodeBy = "threads",
        limits: Limits = LIMITS,
    ) -> None:
        """threads: how many there are of what `by` names. limits: of one row."""
        self._reader = reader
        self._batch_size = batch_size
        self._pinned = pinned
        self._limits = limits
        self._ahead = ahead(batch_size * math.prod(reader.preprocessing.shape))
        rows = self._ahead * -(-batch_size // reader.view_count)
        self._crew: Crew = (
            Threads(reader, threads, limits)
            if by == "threads"
            else Processes(reader, threads, rows, limits)
        )
        self._upcoming: ShardImages | None = None

    @property
    def decoded(self) -> int:
        """A number that grows with the rows that were decoded, or tried."""
        return self._crew.decoded

    def open(self, rows: range, upcoming: range | None = None) -> ShardImages:
        """The images of a shard; those of the upcoming one follow as soon as the crew is free."""
        expected, self._upcoming = self._upcoming, None
        if expected is not None and expected.rows != rows:
            expected.cancel()
            expected = None
        if upcoming is not None:
            self._upcoming = self._images(upcoming)
        return expected or self._images(rows)

    def batches(self, images: ShardImages) -> Iterator[Batch]:
        """The batches of a shard in their order."""
        for _ in range(images.batch_count):
            self._begin_ahead(images)
            batch = images.take()
            self._begin_ahead(images)
            yield batch

    def close(self) -> None:
        """Stop the crew; what it has not begun is dropped."""
        self._crew.close()

    def _images(self, rows: range) -> ShardImages:
        return ShardImages(self._reader, rows, self._batch_size, self._pinned, self._limits)

    def _begin_ahead(self, images: ShardImages) -> None:
        shards = [images] if self._upcoming is None else [images, self._upcoming]
        for shard in shards:
            while not shard.all_begun and sum(s.waiting for s in shards) < self._ahead:
                shard.begin(self._crew)
