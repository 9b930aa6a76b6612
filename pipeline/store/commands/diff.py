"""Comparing two stores: what they say they are, their rows, and the numbers in them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from egapipe.pipeline.store.format.dtypes import Stored, to_floats
from egapipe.pipeline.store.format.index import Rows
from egapipe.pipeline.store.objects.location import Place
from egapipe.pipeline.store.records.record import Commit, Failure
from egapipe.pipeline.store.store import FeatureStore

_BLOCK = 1024
_INDEX_BLOCK = 1 << 16

Cosines = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ArrayDiff:
    """One output in two stores.

    shards, differing: shards that both have, and those among them whose checksums differ; None
    where the layouts differ, so that no shard of one corresponds to one of the other. compared:
    embeddings (a row in a view) that both have. cosine_max, cosine_mean: of 1 - cos over these, 0
    for equal bytes; None where shapes differ or nothing could be compared.
    """

    name: str
    shards: int | None = None
    differing: int | None = None
    compared: int = 0
    cosine_max: float | None = None
    cosine_mean: float | None = None

    @property
    def equal(self) -> bool:
        """Whether every shard that both have is there with the same bytes."""
        return self.differing == 0

    def line(self) -> str:
        """The comparison in words."""
        parts = [self.name]
        if self.shards is not None:
            parts.append(f"{self.differing} of {self.shards} shards differ")
        if self.cosine_max is not None and self.cosine_mean is not None:
            parts.append(
                f"1 - cosine max {self.cosine_max:.3g}, mean {self.cosine_mean:.3g} "
                f"over {self.compared:,} embeddings"
            )
        else:
            parts.append("no embedding in both to compare")
        return f"{parts[0]}: {', '.join(parts[1:])}"


@dataclass(frozen=True)
class StoreDiff:
    """How two stores differ. manifest, rows: a phrase for each difference."""

    manifest: list[str] = field(default_factory=list)
    rows: list[str] = field(default_factory=list)
    arrays: list[ArrayDiff] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Whether they have the same content: manifest, keys, labels, failures and bytes."""
        return not (self.manifest or self.rows) and all(array.equal for array in self.arrays)

    def lines(self) -> list[str]:
        """The differences, a line each, then the arrays."""
        return [*self.manifest, *self.rows, *(array.line() for array in self.arrays)]


def diff_stores(a: Place, b: Place) -> StoreDiff:
    """Compare two stores, complete or not; memory: two shards.

    Chunks are read, and their checksums verified, only where two stores of one shape have not the
    same ones. Where images lie (`source`), and when and where shards were written, may differ.
    Raises StoreError if one is no store or damaged.
    """
    mine, theirs = FeatureStore.open(a), FeatureStore.open(b)
    changes = mine.manifest.changes(theirs.manifest, descriptions=True)
    manifest = [f"{k}: {p[0] or 'not set'} | {p[1] or 'not set'}" for k, p in changes.items()]
    ours, others = mine.snapshot(), theirs.snapshot()
    my_commits, their_commits = ours.commits, others.commits
    rows = [*_index_differences(mine.listing, theirs.listing)]
    rows += _failure_differences(ours.failures, others.failures)
    if my_commits.keys() != their_commits.keys():
        rows.append(
            f"shards committed: {_progress(mine, my_commits)} | {_progress(theirs, their_commits)}"
        )
    shared = [name for name in mine.manifest.outputs if name in theirs.manifest.outputs]
    sides = (_Side(mine, my_commits), _Side(theirs, their_commits))
    return StoreDiff(manifest, rows, [_array(*sides, name) for name in shared])


def overlaps(mine: Sequence[range], theirs: Sequence[range]) -> Iterator[tuple[int, int, range]]:
    """(shard of the one, shard of the other, rows in both), in the order of rows.

    mine, theirs: shards of consecutive rows from 0, as `plan_shards` gives them.
    """
    i = j = 0
    while i < len(mine) and j < len(theirs):
        start, stop = max(mine[i].start, theirs[j].start), min(mine[i].stop, theirs[j].stop)
        yield i, j, range(start, stop)
        ended = mine[i].stop == stop
        j += theirs[j].stop == stop
        i += ended


def cosine_differences(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> Cosines:
    """1 - cosine of the rows of a, b [n, D], float64 [n]; NaN where either is not finite.

    It is half the squared distance of the directions: 1 - a'b would lose what is below 1e-16, and
    in float32 what is below 1e-7. Two zero rows have the same direction, one of them another.
    """
    directions = [_directions(rows.astype(np.float64)) for rows in (a, b)]
    half: Cosines = 0.5 * np.square(directions[0] - directions[1]).sum(axis=1)
    return half


def _directions(rows: npt.NDArray[np.float64]) -> Cosines:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms == 0, 1, norms)


class _Side:
    """One of the two stores, with the last chunk read: consecutive rows share it."""

    def __init__(self, store: FeatureStore, commits: Mapping[int, Commit]) -> None:
        self.store = store
        self.commits = commits
        self._last: tuple[str, int] | None = None
        self._chunk: Stored

    def floats(self, name: str, shard: int, rows: range) -> npt.NDArray[np.float32]:
        """[rows * V, D] of rows of a committed shard."""
        if self._last != (name, shard):
            self._chunk = self.store.chunks.read(self.commits[shard], name)
            self._last = (name, shard)
        start = self.store.shards[shard].start
        part = self._chunk[rows.start - start : rows.stop - start]
        views = len(rows) * self.store.manifest.view_count
        return to_floats(part, self.store.manifest.dtype).reshape(views, -1)


def _array(mine: _Side, theirs: _Side, name: str) -> ArrayDiff:
    shards = differing = None
    if _layout(mine, name) == _layout(theirs, name):
        both = mine.commits.keys() & theirs.commits.keys()
        changed = [s for s in both if not _same_bytes(mine, theirs, name, s, s)]
        shards, differing = len(both), len(changed)
    if _shape(mine, name) != _shape(theirs, name):
        return ArrayDiff(name)
    found = list(_cosines(mine, theirs, name, same_layout=shards is not None))
    compared = sum(count for count, _, _ in found)
    if not compared:
        return ArrayDiff(name, shards, differing)
    largest = max(largest for _, largest, _ in found)
    return ArrayDiff(
        name, shards, differing, compared, largest, sum(total for *_, total in found) / compared
    )


def _cosines(
    mine: _Side, theirs: _Side, name: str, *, same_layout: bool
) -> Iterator[tuple[int, float, float]]:
    """(embeddings, largest, sum) of 1 - cosine, block by block."""
    for i, j, rows in overlaps(mine.store.shards, theirs.store.shards):
        if i not in mine.commits or j not in theirs.commits:
            continue
        if same_layout and _same_bytes(mine, theirs, name, i, j):
            failed = len(mine.commits[i].failures)
            yield (len(rows) - failed) * mine.store.manifest.view_count, 0.0, 0.0
            continue
        for start in range(rows.start, rows.stop, _BLOCK):
            block = range(start, min(start + _BLOCK, rows.stop))
            found = cosine_differences(mine.floats(name, i, block), theirs.floats(name, j, block))
            found = found[~np.isnan(found)]
            yield len(found), float(found.max(initial=0)), float(found.sum())


def _same_bytes(mine: _Side, theirs: _Side, name: str, i: int, j: int) -> bool:
    return mine.commits[i].sha256[name] == theirs.commits[j].sha256[name]


def _shape(side: _Side, name: str) -> tuple[int, ...]:
    manifest = side.store.manifest
    return (manifest.rows, manifest.view_count, *manifest.outputs[name])


def _layout(side: _Side, name: str) -> tuple[object, ...]:
    manifest = side.store.manifest
    return (*_shape(side, name), min(manifest.shard_rows, manifest.rows), manifest.dtype)


def _progress(store: FeatureStore, commits: Mapping[int, Commit]) -> str:
    return f"{len(commits)} of {len(store.shards)}"


def _index_differences(mine: Rows, theirs: Rows) -> Iterator[str]:
    """A phrase a column: how many of the rows that both have differ, and the first."""
    rows = min(mine.num_rows, theirs.num_rows)
    counts, firsts = dict.fromkeys(("key", "label"), 0), dict[str, str]()
    for start in range(0, rows, _INDEX_BLOCK):
        parts = [index.slice(start, min(_INDEX_BLOCK, rows - start)) for index in (mine, theirs)]
        for column in counts:
            left, right = (part[column].to_numpy() for part in parts)
            changed = np.flatnonzero(left != right)
            counts[column] += len(changed)
            if len(changed):
                first = changed[0]
                text = f"first row {start + first}: {left[first]} | {right[first]}"
                firsts.setdefault(column, text)
    for column, first_text in firsts.items():
        yield f"{column}s of {counts[column]:,} of {rows:,} rows, {first_text}"


def _failure_differences(mine: list[Failure], theirs: list[Failure]) -> Iterator[str]:
    """Failed rows that only one has, or with other keys or reasons."""
    first, second = set(mine), set(theirs)
    for whose, only in (("first", first - second), ("second", second - first)):
        if only:
            example = min(only)
            yield (
                f"failures only in the {whose}: {len(only)} rows, "
                f"the first is row {example.row}: {example.reason}"
            )
