"""Stage one from end to end: resolve the manifest, extract what is missing, finish the store."""

import socket
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from egapipe.pipeline.config import Config
from egapipe.pipeline.config.tree import Split
from egapipe.pipeline.datasets import Dataset, open_split
from egapipe.pipeline.datasets.fingerprint import digests_of
from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.results.images import require_images
from egapipe.pipeline.store import Commit, FeatureStore
from egapipe.pipeline.store.format import layout
from egapipe.pipeline.store.records.snapshot import Snapshot
from egapipe.pipeline.terminal.progress import OpenProgress, silent_progress
from egapipe.stages.extract.planning.append import plan_append
from egapipe.stages.extract.planning.job import Job, begun_elsewhere
from egapipe.stages.extract.planning.manifest import Origin, index_of, manifest_for
from egapipe.stages.extract.planning.plan import StorePlan, plan_store
from egapipe.stages.extract.planning.room import require_room
from egapipe.stages.extract.report import ExtractReport, Tally
from egapipe.stages.extract.teachers import Teacher
from egapipe.stages.extract.workers.forward.tuned import open_teacher
from egapipe.stages.extract.workers.inline import extract_inline
from egapipe.stages.extract.workers.meter import Meter
from egapipe.stages.extract.workers.pool.on_ray import extract_pooled


def run(
    config: Config, *, split: Split, local: bool = False, progress: OpenProgress = silent_progress
) -> ExtractReport:
    """Extract a split into its store, or continue where an earlier run stopped.

    local: in this process, without Ray; else over a pool of Ray workers. A finished store of the
    same manifest is left as it is. Raises UsageError (no such split, no resources, too little space
    for what is left), TeacherError (the teacher cannot be used) or StoreError (another store is
    there; too many rows failed).
    """
    [extraction] = prepare(config, [split])
    return extraction.run(local=local, progress=progress)


def prepare(config: Config, splits: Sequence[Split], *, append: bool = False) -> list["Extraction"]:
    """Load the teacher once, and create or open the store of every split.

    append: rows that a finished store has not are appended to it, see `plan_append`.
    What can be refused is refused here, before any image is decoded; raises as `run` does.
    """
    datasets = [open_split(config, split) for split in splits]
    teacher = open_teacher(config)
    pairs = list(zip(splits, datasets, strict=True))
    planned = plan_append if append else plan_store
    plans = [planned(config, split, dataset, teacher) for split, dataset in pairs]
    require_room(plans)
    return [
        _extraction(config, plan, dataset, teacher)
        for plan, dataset in zip(plans, datasets, strict=True)
    ]


@dataclass(frozen=True)
class Extraction:
    """A split whose store is there, perhaps with shards of earlier runs, and its teacher."""

    job: Job
    teacher: Teacher
    planned: Snapshot | None = None
    """Of the store when it was planned, where there was one."""

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do."""
        return self._found.complete and self.job.store.published

    @cached_property
    def _found(self) -> Snapshot:
        """The store when it was first asked for; a command lists its records once."""
        return self.planned or self.job.store.snapshot()

    def retry_failures(self) -> list[int]:
        """Make the shards with recorded failures pending, which `run` then does again.

        What failed for its content fails again, and the store is what it was. Raises StoreError if
        another process extracts into the store.
        """
        with self.job.store.exclusive():
            forgotten = self.job.store.forget_failed()
        self.__dict__["_found"] = self.job.store.snapshot()
        return forgotten

    def run(self, *, local: bool, progress: OpenProgress = silent_progress) -> ExtractReport:
        """Extract what is missing and finish the store, see `run`."""
        began = time.perf_counter()
        store = self.job.store
        tally = Tally(store.manifest.rows)
        if self.complete:
            tally.resume(store.manifest.rows, self._found.failures)
        else:
            with store.exclusive():
                found = store.snapshot()
                tally.resume(found.rows, found.failures)
                if found.pending:
                    store.reopen()
                before = tuple(found.computed) if found.pending else ()
                job = replace(self.job, before=before)
                replace(self, job=job)._complete(tally, found.pending, local, progress)
        return ExtractReport(
            split=self.job.split,
            url=store.url,
            rows=store.manifest.rows,
            views=store.manifest.view_count,
            failures=len(tally.failures),
            extracted=tally.extracted,
            seconds=time.perf_counter() - began,
            shares=tally.shares(),
            working=tally.working,
        )

    def _complete(
        self, tally: Tally, shards: Sequence[int], local: bool, progress: OpenProgress
    ) -> None:
        allowed, store = self.job.config.extract.max_failures, self.job.store
        tally.check_failures(allowed)
        with progress(f"extract {self.job.split}", tally.rows, done=tally.done) as shown:
            meter = Meter(shown, tally, store.manifest.view_count)
            known = list(self.job.before)
            with closing(self._commits(shards, local, meter)) as commits:
                for commit in commits:
                    if commit is not None:
                        self._look_again(commit)
                    meter.settle(commit)
                    if commit is not None and commit.computed not in [*known, {}]:
                        if known:
                            meter.note(begun_elsewhere(store.url, known, commit.computed))
                        known.append(commit.computed)
                    tally.check_failures(allowed)
        store.finish()

    def _look_again(self, commit: Commit) -> None:
        """Raise StoreError if another host has read another image of a shard than is here: one row,
        drawn by the shard's number. The shard is then to be done again."""
        store = self.job.store
        if not store.manifest.dataset.images or commit.host == socket.gethostname():
            return
        rows = store.shards[commit.shard]
        row = int(np.random.default_rng(commit.shard).choice(rows))
        digests = store.read_digests(commit).copy()
        [digests[row - rows.start]] = digests_of(self.job.dataset, [row])
        try:
            store.require_images(commit, digests)
        except StoreError:
            store.objects.delete(layout.commit_key(commit.shard))
            raise

    def _commits(
        self, shards: Sequence[int], local: bool, meter: Meter
    ) -> Generator[Commit | None, None, None]:
        if shards and local:
            yield from extract_inline(self.job, self.teacher, shards, meter.moved, meter.note)
        elif shards:
            yield from extract_pooled(self.job, shards, meter.note, meter.workers)


def _extraction(config: Config, plan: StorePlan, dataset: Dataset, teacher: Teacher) -> Extraction:
    """Of a store that was begun everything but the images was compared when it was planned."""
    same = config.extract.same_software
    if plan.found is None:
        index = index_of(dataset)
        store = FeatureStore.create(plan.objects, plan.manifest, index, same_software=same)
    else:
        store = plan.found.store
        origin = Origin.of(teacher)
        manifest = manifest_for(config, plan.split, origin, dataset, stored=plan.manifest)
        plan.found.require_continued(manifest, same_software=same)
        require_images(store, dataset, plan.found)
    return Extraction(Job(config, plan.split, dataset, store), teacher, plan.found)
