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
from egapipe.pipeline.views import CLEAN, Hashes, teacher_views
from egapipe.stages.distill.images import Images
from egapipe.stages.distill.joint import Embeddings
from egapipe.stages.distill.order import Plain, Plan, at_random
from egapipe.stages.distill.world import World

Ints = npt.NDArray[np.int64]
T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """This worker's rows of one step, on its device.

    images: uint8 [B, 3, H, W]. features: [B, D], as stored. labels: int64 [B], -1 = unlabelled.
    rows: int64 [B] of the data set. grids: [B, C, g, g] of the teacher, as stored, of the same
    views as the features; None where no objective compares them.
    """

    images: Tensor
    features: Tensor
    labels: Tensor
    rows: Tensor
    grids: Tensor | None = None


@dataclass(frozen=True)
class Loader:
    """The batches of the epochs; everything is a function of (seed, epoch, step).

    rows: the rows to train on. labels: int64 [N] of all rows. teacher_plan: the store's views.
    plan: which rows meet in which batch; default: all of them, at random. grids: the teacher's, of
    the same rows and views as `features`, where an objective compares them.
    """

    images: Images
    features: Embeddings
    labels: Ints
    rows: Ints
    hashes: Hashes
    teacher_plan: ViewsConfig
    config: DistillConfig
    world: World
    plan: Plan | None = None
    grids: Embeddings | None = None

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return self._plan.steps

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from `first_step` on."""
        seen = self.teacher_views(epoch)
        batches = self.shares(epoch)[first_step:]
        jobs = (lambda rows=rows: self._batch(rows, epoch, seen[rows]) for rows in batches)
        return run_ahead(jobs, self.images.threads)

    def shares(self, epoch: int) -> list[Ints]:
        """This worker's rows of each step of an epoch, int64 [b] each."""
        return [self.world.share(rows) for rows in self._plan.epoch(epoch)]

    def teacher_views(self, epoch: int) -> Ints:
        """The teacher's view of every row in an epoch, int64 [N]."""
        if self.config.student_view == "clean":
            return np.full(len(self.hashes), CLEAN)
        return teacher_views(self.teacher_plan.count, self.config.seed, epoch, self.hashes)

    @property
    def student_plan(self) -> ViewsConfig:
        """The plan of the student's views."""
        if self.config.student_view == "paired":
            return self.teacher_plan
        return self.config.augment.model_copy(update={"seed": self.config.seed})

    def student_views(self, epoch: int, seen: Ints) -> int | Ints:
        """The student's views under its plan of rows whose teacher's are `seen`: its own
        augmentation of an epoch is view `epoch + 1`."""
        return seen if self.config.student_view == "paired" else epoch + 1

    @property
    def _plan(self) -> Plan:
        config = self.config
        return self.plan or Plain(self.rows, config.batch_size, at_random(config.seed))

    def _batch(self, rows: Ints, epoch: int, views: Ints) -> Batch:
        device = self.world.device
        k = self.student_views(epoch, views)
        images = self.images.batch(rows, self.student_plan, k)
        return Batch(
            images=images,
            features=self.features.take(rows, views).to(device, non_blocking=True),
            labels=torch.from_numpy(self.labels[rows]).to(device, non_blocking=True),
            rows=torch.from_numpy(rows).to(device, non_blocking=True),
            grids=None
            if self.grids is None
            else self.grids.take(rows, views).to(device, non_blocking=True),
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
