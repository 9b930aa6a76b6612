"""Stage one from end to end: resolve the manifest, extract what is missing, finish the store."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from typing import Protocol

from egapipe.pipeline.config import Config
from egapipe.pipeline.config.tree import Split
from egapipe.pipeline.datasets import Dataset, open_dataset
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.progress import Progress, silent_progress
from egapipe.pipeline.store import Commit, FeatureStore
from egapipe.stages.extract.inline import extract_inline
from egapipe.stages.extract.job import Job
from egapipe.stages.extract.manifest import index_of, manifest_for
from egapipe.stages.extract.pooled import extract_pooled
from egapipe.stages.extract.report import ExtractReport, Tally
from egapipe.stages.extract.teachers import Teacher, load_teacher


class OpenProgress(Protocol):
    """`open_progress` of `egapipe.pipeline.progress`, or something like it."""

    def __call__(self, task: str, total: int, *, done: int) -> AbstractContextManager[Progress]:
        """Start to show a task of which `done` of `total` rows are there already."""
        ...


def run(
    config: Config, *, split: Split, local: bool = False, progress: OpenProgress = silent_progress
) -> ExtractReport:
    """Extract a split into its store, or continue where an earlier run stopped.

    local: in this process, without Ray; else over a pool of Ray workers. A finished store of the
    same manifest is left as it is. Raises UsageError (no such split, no resources), TeacherError
    (the teacher cannot be used) or StoreError (another store is there; too many rows failed).
    """
    began = time.perf_counter()
    dataset = _open(config, split)
    teacher = load_teacher(config.teacher)
    manifest = manifest_for(config, split, teacher, dataset)
    store = FeatureStore.create(config.store_url(split), manifest, index_of(dataset))
    tally = Tally(manifest.rows)
    tally.resume(store.commits().values())
    if not store.complete:
        _complete(Job(config, split, dataset, store), teacher, local, tally, progress)
    return ExtractReport(
        split=split,
        url=store.url,
        rows=manifest.rows,
        views=manifest.view_count,
        failures=len(tally.failures),
        extracted=tally.extracted,
        seconds=time.perf_counter() - began,
        shares=tally.shares(),
    )


def _open(config: Config, split: Split) -> Dataset:
    source = config.source(split)
    if source is None:
        raise UsageError(
            f"config {config.name} has no dataset.{split}: add it or choose --split train"
        )
    return open_dataset(source)


def _complete(
    job: Job, teacher: Teacher, local: bool, tally: Tally, progress: OpenProgress
) -> None:
    allowed = job.config.extract.max_failures
    tally.check_failures(allowed)
    with progress(f"extract {job.split}", tally.rows, done=tally.done) as shown:
        meter = Meter(shown, tally, job.store.manifest.view_count)
        with closing(_commits(job, teacher, local, meter)) as commits:
            for commit in commits:
                meter.settle(commit)
                tally.check_failures(allowed)
    job.store.finish()


def _commits(job: Job, teacher: Teacher, local: bool, meter: "Meter") -> Iterator[Commit | None]:
    shards = job.store.pending()
    if not shards:
        return
    if local:
        yield from extract_inline(job, teacher, shards, meter.moved)
    else:
        yield from extract_pooled(job, shards, meter.note)


class Meter:
    """Shows the tally of a run, and what the current shard adds to it."""

    def __init__(self, progress: Progress, tally: Tally, view_count: int) -> None:
        self._progress = progress
        self._tally = tally
        self._view_count = view_count
        self._views = 0

    def moved(self, views: int) -> None:
        """So many views of the current shard are encoded."""
        self._views += views
        self._show()

    def settle(self, commit: Commit | None) -> None:
        """A shard is finished; None: nothing new."""
        if commit is not None:
            self._tally.add(commit)
            self._views = 0
        self._show()

    def note(self, text: str) -> None:
        """A message for the user."""
        self._progress.note(text)

    def _show(self) -> None:
        shares = {f"{name}_share": round(v, 3) for name, v in self._tally.shares().items()}
        failed = {"failed": len(self._tally.failures)} if self._tally.failures else {}
        done = self._tally.done + self._views // self._view_count
        self._progress.update(done, **shares, **failed)
