"""Checking a store: every checksum, every count, and nothing that does not belong there."""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from rich.filesize import decimal

from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.locations.remote import in_order
from egapipe.pipeline.store.create import read_created
from egapipe.pipeline.store.format import layout
from egapipe.pipeline.store.format.dtypes import Stored, is_finite, not_a_number
from egapipe.pipeline.store.format.index import index_problems
from egapipe.pipeline.store.growth import Extended
from egapipe.pipeline.store.objects.location import Place, open_objects
from egapipe.pipeline.store.records.commits import decode_commits
from egapipe.pipeline.store.records.digests import Digests, rows_without
from egapipe.pipeline.store.records.failures import decode_failures
from egapipe.pipeline.store.records.record import (
    IMAGES,
    NOT_FINITE,
    Commit,
    Failure,
    Finished,
    checksums_of,
    content_hash,
    failures_of,
    images_root,
    sha256,
)
from egapipe.pipeline.store.store import FeatureStore
from egapipe.pipeline.store.streams import spread, streams_of
from egapipe.pipeline.views import plan_hash

# Checked with what was appended; what was begun and does not count yet is not of the store.
_APPENDED = re.compile(rf"{layout.APPENDED}/\d{{6}}/.*")

Progress = Callable[[int, int], None]
Problems = Iterator[str]


@dataclass
class CheckReport:
    """What a check found. read: shards of which all was read, and not the records alone. bytes:
    stored embeddings read. problems: one line each."""

    url: str
    problems: list[str] = field(default_factory=list)
    rows: int = 0
    shards: int = 0
    committed: int = 0
    read: int = 0
    complete: bool = False
    bytes: int = 0
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong. An unfinished store can be all right."""
        return not self.problems

    def line(self) -> str:
        """What was checked, and how many problems there are."""
        state = "complete" if self.complete else "unfinished (`egapipe extract` continues it)"
        sample = f" of {self.read}" if self.read < self.committed else ""
        read = f"{decimal(self.bytes)}{sample} in {self.seconds:.1f} s"
        return (
            f"{self.url}: {state}, {self.committed} of {self.shards} shards, read {read}, "
            f"problems: {len(self.problems)}"
        )


def check_store(
    place: Place, progress: Progress | None = None, *, sample: int | None = None
) -> CheckReport:
    """Read all of a store and compare it with its records and its manifest; several shards at once.

    progress: called with (shards checked, shards planned). sample: of how many shards, spread over
    the store, to read what is stored; of the others the records alone. Whatever is wrong is in the
    report, also that no store can be opened (`shards` is then 0).
    """
    started = time.perf_counter()
    objects = open_objects(place)
    report = CheckReport(objects.url)
    try:
        store = FeatureStore.open(objects)
        check = _Check(store, report, progress, sample)
        report.problems += check.run()
        while isinstance(store.objects, Extended):
            # Of what it was, all but the shards that it still has.
            first, before = store.objects.first, FeatureStore.at(store.objects.before)
            seen = {shard: c for shard, c in check.commits.items() if shard < first}
            problems = _grown_from(store, before)
            store, inner = before, CheckReport(objects.url)
            check = _Check(store, inner, None, sample, seen)
            problems += [f"before rows were appended: {problem}" for problem in check.run()]
            report.problems += problems
            report.bytes += inner.bytes
            report.read += inner.read
    except StoreError as error:
        report.problems.append(str(error))
    report.seconds = time.perf_counter() - started
    return report


def _grown_from(store: FeatureStore, before: FeatureStore) -> list[str]:
    """Whether the store before is the one that a manifest names."""
    parent, end = store.manifest.dataset.parent, before.ended()
    if parent is None or (end is not None and end.content == parent.content):
        return []
    return ["the rows before those that were appended are not those that the manifest names"]


class _Examined(NamedTuple):
    """A shard that was looked at. read: whether its chunks were, of so many bytes."""

    commit: Commit | None
    problems: list[str]
    read: bool = False
    bytes: int = 0


class _Check:
    def __init__(
        self,
        store: FeatureStore,
        report: CheckReport,
        progress: Progress | None,
        sample: int | None,
        seen: Mapping[int, Commit] | None = None,
    ) -> None:
        """seen: records of shards that need not be read again. See `check_store`."""
        self.seen = seen or {}
        shards = range(len(store.shards))
        self.wanted = set(shards if sample is None else spread(shards, sample))
        self.store = store
        self.objects = store.objects
        self.manifest = store.manifest
        self.report = report
        self.progress = progress or (lambda done, planned: None)
        self.commits: dict[int, Commit] = {}
        report.url = store.url
        report.rows = store.manifest.rows
        report.shards = len(store.shards)

    def run(self) -> Problems:
        for part in (self.metadata, self.index, self.shards, self.end, self.unknown):
            yield from part()

    def metadata(self) -> Problems:
        """The manifest's own bytes were verified when the store was opened."""
        created, manifest = self.store.created, self.manifest
        expected = layout.metadata_documents(manifest)
        if created.sha256.keys() != {*expected, layout.INDEX}:
            yield f"{self.at(layout.CREATED)} does not list the objects of this manifest"
        if plan_hash(manifest.plan) != manifest.views_hash:
            yield "views_hash is not the hash of the view plan: its views cannot be replayed"
        for key in map(layout.array_key, manifest.arrays):
            try:
                data = read_created(self.objects, created, key)
            except StoreError as error:
                yield str(error)
                continue
            if layout.array_meaning(data) != layout.array_meaning(expected[key]):
                yield f"{self.at(key)} describes another array than the manifest"

    def index(self) -> Problems:
        try:
            self.store.listing.verify()
            yield from index_problems(self.store.listing, self.manifest.rows)
        except StoreError as error:
            yield str(error)

    def shards(self) -> Problems:
        planned = range(len(self.store.shards))
        streams = streams_of(self.store, self.manifest.arrays)
        for shard, found in enumerate(in_order(self.examined, planned, streams)):
            if found.commit is not None:
                self.commits[shard] = found.commit
                self.report.committed += 1
            self.report.read += found.read
            self.report.bytes += found.bytes
            yield from found.problems
            self.progress(shard + 1, len(planned))

    def examined(self, shard: int) -> _Examined:
        """In a thread: nothing of the check is written to."""
        commit, problems, size = None, list[str](), 0
        read = shard in self.wanted
        try:
            commit = self.store.commit(shard)
            if commit is None or self.seen.get(shard) == commit:
                return _Examined(commit, problems)
            problems += self.record(commit)
            for name in self.manifest.arrays if read else ():
                chunk = self.store.chunks.read(commit, name)
                size += chunk.nbytes
                problems += (
                    self.images(commit, chunk)
                    if name == IMAGES
                    else self.chunk(commit, name, chunk)
                )
        except StoreError as error:
            problems.append(str(error))
        return _Examined(commit, problems, read, size)

    def record(self, commit: Commit) -> Problems:
        key = self.at(layout.commit_key(commit.shard))
        rows = [failure.row for failure in commit.failures]
        if rows != sorted(set(rows)) or not set(rows) <= set(range(commit.start, commit.stop)):
            yield f"{key} lists failed rows that are not different rows of the shard, in order"
        elif self.store.keys(rows) != [failure.key for failure in commit.failures]:
            yield f"{key} lists failed rows with other keys than the index"
        reasons = Counter(failure.reason for failure in commit.failures)
        if reasons[NOT_FINITE.format(dtype=self.manifest.dtype)] != commit.nonfinite:
            yield f"{key} counts {commit.nonfinite} rows that are not finite, and lists others"

    def chunk(self, commit: Commit, name: str, chunk: Stored) -> Problems:
        """Failed rows and the padding are NaN as it is written here, all others finite numbers."""
        dtype = self.manifest.dtype
        empty = np.zeros(len(chunk), dtype=bool)
        empty[[failure.row - commit.start for failure in commit.failures]] = True
        empty[commit.stop - commit.start :] = True
        finite = is_finite(chunk, dtype).reshape(len(chunk), -1)
        if not np.array_equal(~finite.all(axis=1), empty):
            yield f"{name} of shard {commit.shard} is not finite in other rows than those failed"
        bits = np.full(1, not_a_number(dtype), chunk.dtype).tobytes()
        if chunk[empty].tobytes() != bits * chunk[empty].size:
            yield f"{name} of shard {commit.shard} has values in rows that failed or are padding"

    def images(self, commit: Commit, digests: Digests) -> Problems:
        """Rows without a digest have failed, and the padding has none."""
        without = rows_without(commit.start, digests)
        padding = set(range(commit.stop, commit.start + len(digests)))
        if not padding <= without:
            yield f"{IMAGES} of shard {commit.shard} has values in its padding"
        lacking = without - padding - {failure.row for failure in commit.failures}
        if lacking:
            yield f"{IMAGES} of shard {commit.shard} has no digest of row {min(lacking)}"

    def end(self) -> Problems:
        """The record that the store is complete, if there is one."""
        data = self.objects.get(layout.FINISHED)
        if data is None:
            return
        try:
            finished = Finished.decode(data, self.at(layout.FINISHED))
        except StoreError as error:
            yield str(error)
            return
        missing = [i for i in range(len(self.store.shards)) if i not in self.commits]
        if missing:
            key = self.at(layout.commit_key(missing[0]))
            yield (
                f"the store was finished, but {key} is missing or damaged: "
                "run `egapipe extract` again to redo the shard"
            )
            return
        problems = [*self.content(finished), *self.failures(finished)]
        self.report.complete = not problems
        yield from problems

    def content(self, finished: Finished) -> Problems:
        dataset, checksums = self.manifest.dataset, checksums_of(self.commits)
        if content_hash(self.manifest.hash(), checksums) != finished.content:
            yield f"{self.at(layout.FINISHED)} is of other shards: {Finished.remedy()}"
            return
        root = images_root(dataset.fingerprint, checksums) if dataset.images else None
        if root != finished.images:
            yield f"{self.at(layout.FINISHED)} is of other images: {Finished.remedy()}"

    def failures(self, finished: Finished) -> Problems:
        data = self.objects.get(layout.FAILURES)
        if data is None or {layout.FAILURES: sha256(data)} != finished.sha256:
            what = "is missing" if data is None else "has not its checksum"
            yield f"{self.at(layout.FAILURES)} {what}: {Finished.remedy()}"
            return
        try:
            listed = decode_failures(data, self.at(layout.FAILURES))
            if listed != failures_of(self.commits):
                yield f"{self.at(layout.FAILURES)} lists other rows than the commit records"
            else:
                yield from self.table(listed)
        except StoreError as error:
            yield str(error)

    def table(self, failures: list[Failure]) -> Problems:
        """The table of records; older egapipes finished stores without one."""
        data = self.objects.get(layout.COMMIT_TABLE)
        if data is None:
            return
        try:
            table = decode_commits(data, failures, self.at(layout.COMMIT_TABLE))
        except StoreError as error:
            yield f"{error}: {Finished.remedy()}"
            return
        if dict(table) != self.commits or not table.is_of(map(self.encoded, sorted(self.commits))):
            yield (
                f"{self.at(layout.COMMIT_TABLE)} lists other records than there are: delete "
                f"{self.at(layout.FINISHED)} and run `egapipe extract` again"
            )

    def at(self, key: str) -> str:
        """Where an object lies, for people: what was appended is in a folder of its own."""
        return self.objects.located(key)

    def encoded(self, shard: int) -> bytes:
        return self.commits[shard].encode()

    def unknown(self) -> Problems:
        planned = layout.planned_keys(self.manifest)
        for key in self.objects.sizes():
            if key in planned or _APPENDED.fullmatch(key):
                continue
            if layout.leftover_of(key) not in planned:
                yield f"{key} does not belong to the store"
            elif self.report.complete:
                yield f"{key} was left by a killed writer: {Finished.remedy()}"
