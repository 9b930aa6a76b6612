"""Where a step's batch comes from: rows on the device, or rows that the host prepares."""

from collections.abc import Callable
from typing import Protocol

import torch

from egapipe.stages.distill.data.batch import Batch
from egapipe.stages.distill.data.loader import Loader
from egapipe.stages.distill.workers.together import Steady

Check = Callable[[], None]


class Batches(Protocol):
    """The batches of a training, one after the other."""

    fixed: bool
    """Whether every batch lies in the same memory, as a CUDA graph needs it."""
    resident: bool
    """Whether a batch of any step of the epoch can be made again."""
    step: torch.Tensor
    """int64 [1] on the device: the step of the epoch whose batch comes next. The training moves it
    on at the end of a step."""

    def begin(self, epoch: int, first_step: int) -> None:
        """Stand at a step of an epoch."""
        ...

    def advance(self) -> None:
        """Wait for what the host has to bring for the next step."""
        ...

    def batch(self) -> Batch:
        """The batch of `step`, on the device."""
        ...

    def bare(self) -> Batch:
        """The same before colours and mixtures, whose rows are what data set and store hold."""
        ...

    def checked(self, check: Check) -> Check:
        """A check before which is raised what kept this worker from a batch, if anything did."""
        ...


class LoadedBatches:
    """Batches that a loader makes on the host, ahead of the training where it has threads.

    On a GPU they are copied into one place: what replays a recorded step reads it there.
    """

    resident = False

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._device = loader.world.device
        self.fixed = self._device.type == "cuda"
        self.step = torch.zeros(1, dtype=torch.int64, device=self._device)
        self._coming: Steady | None = None
        self._batch: Batch | None = None
        self._epoch = 0

    def begin(self, epoch: int, first_step: int) -> None:
        """See `Batches`."""
        self._coming = Steady(self._loader.epoch(epoch, first_step), self._loader.world)
        self._epoch = epoch
        self.step.fill_(first_step)

    def advance(self) -> None:
        """See `Batches`."""
        if self._coming is None:
            raise RuntimeError("begin comes before advance")
        batch = next(self._coming)
        if self._batch is None or not self.fixed:
            self._batch = batch
            return
        for new, place in zip(batch.tensors(), self._batch.tensors(), strict=True):
            place.copy_(new)
            # It was made on the stream of copies, which must not use its memory again yet.
            new.record_stream(torch.cuda.current_stream(self._device))

    def checked(self, check: Check) -> Check:
        """See `Batches`."""
        return check if self._coming is None else self._coming.checked(check)

    def batch(self) -> Batch:
        """See `Batches`. Raises RuntimeError before the first `advance`."""
        if self._batch is None:
            raise RuntimeError("advance comes before batch")
        return self._batch

    def bare(self) -> Batch:
        """See `Batches`. Raises RuntimeError before the first `advance`."""
        if self._loader.changes.columns == 0:
            return self.batch()
        return self._loader.bare(self._epoch, int(self.step))
