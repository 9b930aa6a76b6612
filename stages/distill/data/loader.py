"""Batches for the loop: images, teacher features and labels of the same rows."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from egapipe.pipeline.config.data import ViewsConfig
from egapipe.pipeline.config.distill import DistillConfig
from egapipe.pipeline.views import WHOLE, Hashes, own_shares, quarter_turns, settled
from egapipe.stages.distill.data.ahead import free_rows, read_ahead
from egapipe.stages.distill.data.batch import Batch
from egapipe.stages.distill.data.inputs.changes import Changes
from egapipe.stages.distill.data.inputs.images import Frame, Images
from egapipe.stages.distill.data.inputs.mixing import blended
from egapipe.stages.distill.data.joint import Embeddings
from egapipe.stages.distill.data.rows.entries import Entries, entries_of, plain_views
from egapipe.stages.distill.data.rows.order import UNLABELLED, Plain, Plan, at_random, drawn_before
from egapipe.stages.distill.data.rows.partners import Mixture
from egapipe.stages.distill.workers.world import World

Ints = npt.NDArray[np.int64]
Share = tuple[Ints, Ints]
"""Rows of a step, and how often each came up in the epoch before."""
T = TypeVar("T")


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
    plan: which rows meet in which batch; default: all of them, at random. outputs: what else
    objectives compare of the teacher, by name, of the same rows and views as `features`. partners:
    int64 [N], the row that each one's views are mixed with, where the teacher's are; itself where
    it is not.
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
    outputs: Mapping[str, Embeddings] = field(default_factory=dict)
    partners: Ints | None = None

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
        parts = [self.features, *self.outputs.values()]

        def read(some: Sequence[Share]) -> None:
            rows, draws = (np.concatenate(column) for column in zip(*some, strict=True))
            entries = self.entries(rows, draws, epoch)
            for part in parts:
                part.read_ahead(entries.rows, entries.views)

        most = free_rows(sum(part.row_bytes for part in parts))
        several = self.config.views_per_row
        return read_ahead(shares, [several * len(rows) for rows, _ in shares], most, read)

    def shares(self, epoch: int) -> list[Share]:
        """This worker's rows of each step of an epoch, and how often each came up in it before:
        int64 [b] each. Behind them are the rows that they are mixed with, where they are."""
        batches = self._plan.epoch(epoch)
        steps = zip(batches, drawn_before(batches), strict=True)
        share = self.changes.share
        return [(share(rows, self.world), share(draws, self.world)) for rows, draws in steps]

    def whole(self, epoch: int) -> Iterator[Entries]:
        """The entries of each step of an epoch, of all workers, without what is mixed in."""
        batches = self._plan.epoch(epoch)
        for rows, draws in zip(batches, drawn_before(batches), strict=True):
            yield self.entries(rows, draws, epoch)

    def bare(self, epoch: int, step: int) -> Batch:
        """The batch of a step before colours and mixtures."""
        rows, draws = self.shares(epoch)[step]
        return self.changes.bare(self._batch(self.entries(rows, draws, epoch)))

    @property
    def changes(self) -> Changes:
        """What becomes of the student's images behind crop and flip."""
        frame = self.images.frame
        # Arrays are not changed.
        size = frame.size if isinstance(frame, Frame) else (0, 0)
        return Changes(self.config, self.hashes, size)

    def entries(self, rows: Ints, draws: Ints, epoch: int) -> Entries:
        """What stands in a batch for rows, int64 [N], that came up so often in the epoch before."""
        hashes = self.hashes[rows]
        return entries_of(self.config, self.teacher_plan, hashes, rows, draws, epoch)

    def plain_views(self, rows: Ints, epoch: int) -> Ints:
        """A view of the teacher that each row has in an epoch and that is neither turned nor mixed,
        int64 [B]."""
        return plain_views(self.config, self.teacher_plan, self.hashes[rows], epoch)

    @property
    def student_plan(self) -> ViewsConfig:
        """The plan of the student's views."""
        return student_plan(self.config, self.teacher_plan)

    def shown(self, entries: Entries) -> Ints:
        """The student's views under its plan, int64 [B]."""
        return entries.views if self.config.student_view == "paired" else entries.own

    def labels_of(self, entries: Entries) -> Ints:
        """int64 [B]: labels are those of plain views."""
        turned = quarter_turns(self.teacher_plan, entries.views) > 0
        return np.where(turned, UNLABELLED, self.labels[entries.rows])

    @property
    def _plan(self) -> Plan:
        config = self.config
        return self.plan or Plain(self.rows, config.batch_size, at_random(config.seed))

    def _changed(self, rows: Ints, draws: Ints, epoch: int) -> Batch:
        entries, changes = self.entries(rows, draws, epoch), self.changes
        batch = self._batch(entries)
        if changes.columns == 0:
            return batch
        drawn = torch.from_numpy(changes.draw(entries.rows, entries.own))
        return changes.made(batch, drawn.to(self.world.device, non_blocking=True))

    def _batch(self, entries: Entries) -> Batch:
        device, rows, views = self.world.device, entries.rows, entries.views
        numbers = (self.labels_of(entries), rows, views, entries.draws)
        there = [torch.from_numpy(one).to(device, non_blocking=True) for one in numbers]
        batch = Batch(
            images=self.images.batch(rows, self.student_plan, self.shown(entries)),
            features=self.features.take(rows, views).to(device, non_blocking=True),
            labels=there[0],
            rows=there[1],
            views=there[2],
            outputs={
                name: output.take(rows, views).to(device, non_blocking=True)
                for name, output in self.outputs.items()
            },
            draws=there[3],
        )
        return self._mixed(batch, entries)

    @property
    def mixed_in(self) -> Ints | None:
        """`partners`, where the student sees the teacher's mixtures; None where it sees none."""
        return self.partners if self.config.student_view == "paired" else None

    def mixture(self, entries: Entries) -> Mixture | None:
        """What the student's images have in them; None where nothing is mixed."""
        if self.mixed_in is None:
            return None
        partners = self.mixed_in[entries.rows]
        shares = own_shares(self.teacher_plan, self.hashes[entries.rows], entries.views)
        shares = np.where(partners == entries.rows, WHOLE, shares)
        return Mixture(partners, shares, self.labels_of(entries._replace(rows=partners)))

    def _mixed(self, batch: Batch, entries: Entries) -> Batch:
        mixture, device = self.mixture(entries), self.world.device
        if mixture is None:
            return batch
        others = self.images.batch(mixture.partners, self.student_plan, self.shown(entries))
        shares, labels = (
            torch.from_numpy(one).to(device, non_blocking=True)
            for one in (mixture.shares, mixture.labels)
        )
        images = blended(batch.images, others, shares)
        return replace(batch, images=images, others=labels, share=shares.float() / WHOLE)


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
