"""Batches for the loop: images, teacher features and labels of the same rows."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from egapipe.pipeline.config.data import ViewsConfig
from egapipe.pipeline.config.distill import DistillConfig
from egapipe.pipeline.store import Features
from egapipe.pipeline.views import CLEAN, Hashes, teacher_views
from egapipe.stages.distill.images import Images
from egapipe.stages.distill.order import epoch_batches
from egapipe.stages.distill.world import World

Ints = npt.NDArray[np.int64]
T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """This worker's rows of one step, on its device.

    images: uint8 [B, 3, H, W]. features: [B, D], as stored. labels: int64 [B], -1 = unlabelled.
    rows: int64 [B] of the data set.
    """

    images: Tensor
    features: Tensor
    labels: Tensor
    rows: Tensor


@dataclass(frozen=True)
class Loader:
    """One pass over the rows an epoch; everything is a function of (seed, epoch, step).

    rows: the rows to train on. labels: int64 [N] of the data set. teacher_plan: the store's views.
    """

    images: Images
    features: Features
    labels: Ints
    rows: Ints
    hashes: Hashes
    teacher_plan: ViewsConfig
    config: DistillConfig
    world: World

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return max(1, len(self.rows) // self.config.batch_size)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from `first_step` on."""
        config = self.config
        batches = epoch_batches(self.rows, config.batch_size, config.seed, epoch)[first_step:]
        seen = teacher_views(self.teacher_plan.count, config.seed, epoch, self.hashes)
        if config.student_view == "clean":
            seen = np.full_like(seen, CLEAN)
        jobs = (
            lambda rows=rows: self._batch(self.world.share(rows), epoch, seen) for rows in batches
        )
        return run_ahead(jobs, self.images.threads)

    def _batch(self, rows: Ints, epoch: int, seen: Ints) -> Batch:
        device = self.world.device
        if self.config.student_view == "paired":
            images = self.images.batch(rows, self.teacher_plan, seen[rows])
        else:
            # The student's own augmentation of this epoch is view `epoch + 1` of its own plan.
            plan = self.config.augment.model_copy(update={"seed": self.config.seed})
            images = self.images.batch(rows, plan, epoch + 1)
        return Batch(
            images=images,
            features=self.features.take(rows, seen[rows]).to(device, non_blocking=True),
            labels=torch.from_numpy(self.labels[rows]).to(device, non_blocking=True),
            rows=torch.from_numpy(rows).to(device, non_blocking=True),
        )


def run_ahead(jobs: Iterator[Callable[[], T]], threads: int) -> Iterator[T]:
    """The jobs' results in order; with threads, so many jobs and one are under way ahead."""
    if threads == 0:
        for job in jobs:
            yield job()
        return
    with ThreadPoolExecutor(threads) as pool:
        pending: deque[Future[T]] = deque()
        try:
            for job in jobs:
                pending.append(pool.submit(job))
                if len(pending) > threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
