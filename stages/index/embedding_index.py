"""An index of a store's clean embeddings in this node's cache, or wherever one is wanted."""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from egapipe.pipeline.disk.caches import INDEXES, build_once
from egapipe.pipeline.disk.files import read_json_object, replace_file
from egapipe.pipeline.errors import EgapipeError, StoreError, UsageError, one_line
from egapipe.pipeline.mathematics.nearest import Floats, Ints, nearest, unit_directions
from egapipe.pipeline.store import Features, FeatureStore
from egapipe.pipeline.views import CLEAN
from egapipe.stages.index import KINDS
from egapipe.stages.index.faiss_index import (
    Chunks,
    build_index,
    kind_for,
    read_index,
    write_index,
)

_CHUNK = 16_384
_QUERIES = 200
_RECALL_AT = 10


@dataclass(frozen=True)
class IndexReport:
    """What an index is. recall: share of the 10 nearest of 200 sampled rows that it finds, 1 for an
    exact one. seconds: to build it. content: identity of the store's content."""

    file: str
    kind: str
    rows: int
    dim: int
    bytes: int
    recall: float
    seconds: float
    content: str


@dataclass(frozen=True)
class EmbeddingIndex:
    """An index in memory; ids are rows of the store."""

    report: IndexReport
    index: Any

    def search(self, vectors: Floats, k: int) -> tuple[Floats, Ints]:
        """Cosines float32 [Q, k], largest first, and rows int64 [Q, k], -1 where there are fewer.

        vectors: float32 [Q, D], of any length.
        """
        similarity, rows = self.index.search(np.ascontiguousarray(unit_directions(vectors)), k)
        return similarity, rows


def build(
    url: str,
    *,
    kind: str = "auto",
    to: str | Path | None = None,
    cache_dir: str | None = None,
    output: str = "embedding",
) -> EmbeddingIndex:
    """Index the clean views of a complete store, or open the index that is there already.

    kind: auto (by the number of rows) or one of KINDS. to: the file; default: in the node's cache,
    by the store's content. Raises UsageError (no such kind) or StoreError (no complete store, or
    no row in it that did not fail).
    """
    if kind not in ("auto", *KINDS):
        raise UsageError(f"index kind {kind!r}: choose auto, {', '.join(KINDS)}")
    features = Features.open(FeatureStore.open(url), output, cache_dir, views=[CLEAN])
    rows = np.flatnonzero(features.valid)
    if len(rows) == 0:
        raise StoreError(f"store {url} has no usable row: every image failed")
    kind = kind_for(len(rows)) if kind == "auto" else kind
    content = features.key
    if to is None:
        file = INDEXES.file(features.path.parent.parent, f"{content}-{kind}")
        return build_once(
            INDEXES,
            file,
            lambda: _cached(file, kind, content),
            lambda partial: _build(features, rows, kind, file, partial, content),
        )
    file = Path(to)
    report = _known(file, kind, content)
    if report is None:
        _claim(file, kind)
        report = _build(features, rows, kind, file, file, content)
    return EmbeddingIndex(report, read_index(file))


def _claim(file: Path, kind: str) -> None:
    """Make the folder of an index, and a record that it is ours; of no content until it is there.

    Raises UsageError for files of somebody else's, and a folder that cannot be written.
    """
    ours = _report(_record(file)) is not None
    for path in (file, _record(file)):
        if os.path.lexists(path) and not ours:
            raise UsageError(
                f"{path} is there, and no index that egapipe wrote: choose another file, or move it"
            )
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot write {file}: {one_line(error)}: choose another place with --to"
        ) from None
    claim = IndexReport(str(file), kind, rows=0, dim=0, bytes=0, recall=0, seconds=0, content="")
    replace_file(_record(file), json.dumps(asdict(claim)).encode())


def _cached(file: Path, kind: str, content: str) -> EmbeddingIndex | None:
    """None if it is not there, or damaged."""
    report = _known(file, kind, content)
    if report is None:
        return None
    try:
        return EmbeddingIndex(report, read_index(file))
    except EgapipeError:
        return None


def _build(
    features: Features, rows: Ints, kind: str, file: Path, to: Path, content: str
) -> IndexReport:
    """Write the index of `file` to `to`, and then its record: without one it does not count."""

    def chunks() -> Iterator[tuple[Ints, Floats]]:
        for start in range(0, len(rows), _CHUNK):
            part = rows[start : start + _CHUNK]
            yield part, directions(features, part)

    began = time.perf_counter()
    index = build_index(kind, len(rows), features.dim, chunks)
    seconds = time.perf_counter() - began
    write_index(index, to)
    report = IndexReport(
        file=str(file),
        kind=kind,
        rows=len(rows),
        dim=features.dim,
        bytes=to.stat().st_size,
        recall=1.0 if kind == "flat" else _recall(index, features, rows, chunks),
        seconds=seconds,
        content=content,
    )
    replace_file(_record(file), json.dumps(asdict(report), indent=2).encode())
    return report


def directions(features: Features, rows: Ints) -> Floats:
    """The clean embeddings of some rows at unit length, float32 [n, D]."""
    return unit_directions(features.take(rows, CLEAN).float().flatten(1).numpy())


def _recall(index: Any, features: Features, rows: Ints, chunks: Chunks) -> float:
    """Against exact search, chunk by chunk so that it fits where the index does."""
    asked = np.random.default_rng(0).choice(rows, min(_QUERIES, len(rows)), replace=False)
    queries, k = directions(features, asked), min(_RECALL_AT, len(rows))
    best: list[tuple[Floats, Ints]] = []
    for numbers, vectors in chunks():
        similarity, places = nearest(vectors, queries, min(k, len(numbers)))
        best.append((similarity, numbers[places]))
    similarity = np.concatenate([s for s, _ in best], axis=1)
    numbers = np.concatenate([n for _, n in best], axis=1)
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    exact = np.take_along_axis(numbers, order, axis=1)
    _, found = index.search(queries, k)
    hits = [len(np.intersect1d(a, b)) for a, b in zip(exact, found, strict=True)]
    return float(np.sum(hits)) / exact.size


def _known(file: Path, kind: str, content: str) -> IndexReport | None:
    """The record of an index that is there, if it is of this kind and content."""
    report = _report(_record(file))
    if report is None or not file.is_file():
        return None
    same = (report.kind, report.content) == (kind, content)
    return report if same and report.bytes == file.stat().st_size else None


def _report(record: Path) -> IndexReport | None:
    """The record of an index; None if there is none, or it is no such record."""
    try:
        return IndexReport(**read_json_object(record))
    except (UsageError, TypeError):
        return None


def _record(file: Path) -> Path:
    return file.with_suffix(f"{file.suffix}.json")
