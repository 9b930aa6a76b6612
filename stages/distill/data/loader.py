"""Batches for the loop: images, teacher features and labels of the same rows."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from egapipe.pipeline.config.data import ViewsConfig
from egapipe.pipeline.config.distill import DistillConfig
from egapipe.pipeline.views import CLEAN, Hashes, settled, teacher_views
from egapipe.stages.distill.data.ahead import free_rows, read_ahead
from egapipe.stages.distill.data.batch import Batch
from egapipe.stages.distill.data.changes import Changes
from egapipe.stages.distill.data.images import Images
from egapipe.stages.distill.data.joint import Embeddings
from egapipe.stages.distill.data.order import Plain, Plan, at_random, drawn_before
from egapipe.stages.distill.workers.world import World

Ints = npt.NDArray[np.int64]
Share = tuple[Ints, Ints]
"""Rows of a step, and how often each came up in the epoch before."""
T = TypeVar("T")


# Views of the student's own plan between those of a row that comes up again in an epoch: no
# training has so many epochs.
_APART = 2**32


def student_views(epoch: int, draws: Ints) -> Ints:
    """The student's own augmentation of a row, as a view of its own plan, int64 [B].

    View `epoch + 1`, and another one each time that the row comes up again in the epoch.
    """
    return epoch + 1 + _APART * draws


def student_plan(config: DistillConfig, teacher: ViewsConfig) -> ViewsConfig:
    """The plan of the student's views. teacher: that of the store it learns from."""
    if config.student_view == "paired":
        return teacher
    own = config.augment.model_copy(update={"seed": config.seed})
    return settled(own, teacher.aspect)


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
        shares = self.shares(epoch)[first_step:]
        jobs = (
            lambda rows=rows, draws=draws: self._changed(rows, draws, epoch)
            for rows, draws in self._read_ahead(shares, epoch)
        )
        return run_ahead(jobs, self.images.threads, self.world.device)

    def _read_ahead(self, shares: list[Share], epoch: int) -> Iterator[Share]:
        """The shares of an epoch, whose features are on their way from the disk."""
        parts = [part for part in (self.features, self.grids) if part is not None]

        def read(some: Sequence[Share]) -> None:
            rows, draws = (np.concatenate(column) for column in zip(*some, strict=True))
            views = self.teacher_views(rows, epoch, draws)
            for part in parts:
                part.read_ahead(rows, views)

        most = free_rows(sum(part.row_bytes for part in parts))
        return read_ahead(shares, [len(rows) for rows, _ in shares], most, read)

    def shares(self, epoch: int) -> list[Share]:
        """This worker's rows of each step of an epoch, and how often each came up in it before:
        int64 [b] each. Behind them are the rows that they are mixed with, where they are."""
        batches = self._plan.epoch(epoch)
        steps = zip(batches, drawn_before(batches), strict=True)
        share = self.changes.share
        return [(share(rows, self.world), share(draws, self.world)) for rows, draws in steps]

    def bare(self, epoch: int, step: int) -> Batch:
        """The batch of a step before colours and mixtures."""
        rows, draws = self.shares(epoch)[step]
        return self.changes.bare(self._batch(rows, draws, epoch))

    @property
    def changes(self) -> Changes:
        """What becomes of the student's images behind crop and flip."""
        return Changes(self.config, self.hashes, self.images.frame.size)

    def teacher_views(self, rows: Ints, epoch: int, draws: int | Ints = 0) -> Ints:
        """The view of the teacher that each row has in an epoch, int64 [B].

        draws: how often it came up in the epoch before; each time it is the row's next view.
        """
        if self.config.student_view == "clean":
            return np.full(len(rows), CLEAN)
        count, seed = self.teacher_plan.count, self.config.seed
        return teacher_views(count, seed, epoch + np.asarray(draws), self.hashes[rows])

    @property
    def student_plan(self) -> ViewsConfig:
        """The plan of the student's views."""
        return student_plan(self.config, self.teacher_plan)

    def student_views(self, epoch: int, draws: Ints, seen: Ints) -> Ints:
        """The student's views under its plan, int64 [B], of rows whose teacher's are `seen`."""
        return seen if self.config.student_view == "paired" else student_views(epoch, draws)

    @property
    def _plan(self) -> Plan:
        config = self.config
        return self.plan or Plain(self.rows, config.batch_size, at_random(config.seed))

    def _changed(self, rows: Ints, draws: Ints, epoch: int) -> Batch:
        batch, changes = self._batch(rows, draws, epoch), self.changes
        if changes.columns == 0:
            return batch
        drawn = torch.from_numpy(changes.draw(rows, student_views(epoch, draws)))
        return changes.made(batch, drawn.to(self.world.device, non_blocking=True))

    def _batch(self, rows: Ints, draws: Ints, epoch: int) -> Batch:
        device, views = self.world.device, self.teacher_views(rows, epoch, draws)
        k = self.student_views(epoch, draws, views)
        images = self.images.batch(rows, self.student_plan, k)
        return Batch(
            images=images,
            features=self.features.take(rows, views).to(device, non_blocking=True),
            labels=torch.from_numpy(self.labels[rows]).to(device, non_blocking=True),
            rows=torch.from_numpy(rows).to(device, non_blocking=True),
            grids=None
            if self.grids is None
            else self.grids.take(rows, views).to(device, non_blocking=True),
            draws=torch.from_numpy(draws).to(device, non_blocking=True),
        )


def run_ahead(jobs: Iterator[Callable[[], T]], threads: int, device: torch.device) -> Iterator[T]:
    """The jobs' results in order; with threads, so many jobs and one are under way ahead.

    device: that the results lie on. To a GPU the threads copy beside the work of whoever takes the
    results, and hand out what has arrived.
    """
    if threads == 0:
        for job in jobs:
            yield job()
        return
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None
    with ThreadPoolExecutor(threads) as pool:
        pending: deque[Future[T]] = deque()
        try:
            for job in jobs:
                pending.append(pool.submit(_arrived, job, stream))
                if len(pending) > threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _arrived(job: Callable[[], T], stream: torch.cuda.Stream | None) -> T:
    """A job's result. A new thread is at the first GPU, whichever the training is on."""
    if stream is None:
        return job()
    with torch.cuda.device(stream.device), torch.cuda.stream(stream):
        made = job()
        event = torch.cuda.Event()
        event.record(stream)
    event.synchronize()
    return made
