"""Images of a shard as batches of views, read and decoded ahead of the teacher."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from egapipe.pipeline.config.data import ViewsConfig
from egapipe.pipeline.config.extract import DecodeBy
from egapipe.pipeline.datasets import Dataset
from egapipe.pipeline.datasets.reading import naming
from egapipe.pipeline.errors import ImageError
from egapipe.pipeline.store import Failure
from egapipe.pipeline.views import key_hashes, view_boxes
from egapipe.stages.extract.decoding.crew import Crew, Decoded, Processes, Task, Threads
from egapipe.stages.extract.teachers import Pixels, Preparation

# Batches being decoded or waiting for the teacher: enough that a slow image does not stop it.
AHEAD = 4


class Batch(NamedTuple):
    """Consecutive views of a shard: view v of its r-th row has position r * V + v."""

    pixels: Tensor
    """uint8 [B, *shape], of the teacher's preprocessing; zeros where the image cannot be read."""
    start: int
    """Position of the first view."""


@dataclass(frozen=True)
class Reader:
    """One row of a data set as the views that a teacher sees."""

    dataset: Dataset
    preprocessing: Preparation
    plan: ViewsConfig

    @property
    def view_count(self) -> int:
        """V: the clean view and the augmented ones."""
        return self.plan.count + 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all views of a row: V, then that of the preprocessing."""
        return (self.view_count, *self.preprocessing.shape)

    def views(self, row: int) -> list[Pixels]:
        """All views of a row, uint8 of the preprocessing's shape; the image is decoded once.

        Raises ImageError if it is missing or damaged, MachineError if the machine cannot read it.
        """
        image = self.dataset.image(row)
        clean = self.preprocessing.clean(image)
        if self.plan.count == 0:
            return [clean]
        hashes = np.repeat(key_hashes([self.dataset.keys[row]]), self.plan.count)
        size = np.array([[image.height, image.width]])
        boxes = view_boxes(self.plan, hashes, np.arange(1, self.view_count), size)
        return [clean, *(self.preprocessing.view(image, boxes[k]) for k in range(len(boxes)))]

    def read(self, row: int, slots: Sequence[Pixels]) -> Decoded:
        """Fill a slot a view, uint8 of the preprocessing's shape; zeros if there is no image.

        Raises MachineError, which names row and host and is recorded nowhere: it ends the shard.
        """
        began, failures, key = time.perf_counter(), [], self.dataset.keys[row]
        try:
            with naming(self.dataset.name, row, key):
                views = self.views(row)
            for slot, pixels in zip(slots, views, strict=True):
                slot[...] = pixels
        except ImageError as error:
            failures = [Failure(row, key, str(error))]
            for slot in slots:
                slot[...] = 0
        return Decoded(failures, time.perf_counter() - began)


class ShardImages:
    """The images of one shard, decoded in the order the teacher needs them.

    The composition of batches is a function of the shard and the batch size alone, so that no
    embedding depends on who computed it.
    """

    def __init__(self, reader: Reader, rows: range, batch_size: int, pinned: bool) -> None:
        self.rows = rows
        self.view_count = len(rows) * reader.view_count
        self.batch_count = -(-self.view_count // batch_size)
        self.failures: list[Failure] = []
        self.seconds = 0.0
        """Seconds that all threads or processes together spent on the images so far."""
        self._reader = reader
        self._batch_size = batch_size
        self._pinned = pinned
        self._buffers: dict[int, Tensor] = {}
        self._decoding: list[list[Future[Decoded]]] = []
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
        self._decoding.append(crew.begin([Task(self.rows[r], self._slots(r)) for r in rows]))
        self._begun += 1

    def take(self) -> Batch:
        """Wait for the next of the batches that were begun."""
        # A row whose views reach into this batch from the one before was waited for there.
        number, self._taken = self._taken, self._taken + 1
        for future in self._decoding[number]:
            decoded = future.result()
            self.seconds += decoded.seconds
            self.failures += decoded.failures
        return Batch(self._buffers.pop(number), number * self._batch_size)

    def cancel(self) -> None:
        """Forget what is not decoded yet."""
        for future in chain.from_iterable(self._decoding):
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
    ) -> None:
        """threads: how many there are of what `by` names."""
        self._reader = reader
        self._batch_size = batch_size
        self._pinned = pinned
        self._crew: Crew = (
            Threads(reader, threads)
            if by == "threads"
            else Processes(reader, threads, AHEAD * -(-batch_size // reader.view_count))
        )
        self._upcoming: ShardImages | None = None

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
        return ShardImages(self._reader, rows, self._batch_size, self._pinned)

    def _begin_ahead(self, images: ShardImages) -> None:
        shards = [images] if self._upcoming is None else [images, self._upcoming]
        for shard in shards:
            while not shard.all_begun and sum(s.waiting for s in shards) < AHEAD:
                shard.begin(self._crew)
