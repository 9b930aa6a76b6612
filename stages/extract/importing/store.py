"""A store made from embeddings that another program computed."""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from egapipe.pipeline.config import Config
from egapipe.pipeline.config.teachers import ImportedTeacher
from egapipe.pipeline.config.tree import Split
from egapipe.pipeline.datasets import Dataset, open_split
from egapipe.pipeline.disk.digests import cached_digest
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.keys import BLOCK, repeated
from egapipe.pipeline.results.durable import durable
from egapipe.pipeline.store import Failure, FeatureStore
from egapipe.pipeline.terminal.progress import OpenProgress, silent_progress
from egapipe.stages.extract.importing.embeddings import read_embeddings
from egapipe.stages.extract.importing.spool import BATCH_ROWS
from egapipe.stages.extract.importing.tables import Columns, Embeddings
from egapipe.stages.extract.planning.manifest import Origin, index_of, manifest_for, software
from egapipe.stages.extract.report import ExtractReport

EMBEDDING = "embedding"
NO_NUMBERS = "the table has null in place of numbers"


def import_embeddings(
    config: Config,
    path: str,
    *,
    split: Split,
    columns: Columns | None = None,
    from_split: str | None = None,
    outputs: Mapping[str, str] | None = None,
    progress: OpenProgress = silent_progress,
) -> ExtractReport:
    """Write a split's store from embeddings; run it again after a kill and it continues.

    path: `.npy` [rows, D] or [rows, views, D] in the order of the data set, `.parquet`, or a
    Hugging Face data set with several `from_split` (default: `split`); see `read_embeddings`. Keys
    decide the order if there are any. outputs: name -> what else is stored of the same rows, of any
    shape: another `.npy`, [rows, views, *shape] or of one view [rows, *shape], or a column of the
    same table. Without keys, a data set with a `limit` takes its own rows
    out of those of the whole source, or finds them alone. Rows that are null or not finite become
    failures. Raises UsageError if the configuration's teacher is not `imported`, or the embeddings
    do not fit the data set and view plan; StoreError if another store is there, or another process
    writes to it.
    """
    began = time.perf_counter()
    teacher = config.teacher
    if not isinstance(teacher, ImportedTeacher):
        raise UsageError(
            f"config {config.name} has teacher.backend {teacher.backend}: embeddings made "
            "elsewhere need teacher={backend: imported, model: ...}"
        )
    dataset = open_split(config, split)
    found = read_embeddings(path, columns, split=from_split or split)
    views = config.view_plan(split).count + 1
    rows = _rows(found, dataset, path)
    dim = _require_views(found, views, path)
    others = {
        name: _other(place, path, columns or Columns(), from_split or split)
        for name, place in (outputs or {}).items()
    }
    shapes = {name: _other_shape(name, other, found, views) for name, other in others.items()}
    origin = Origin(
        spec={**durable(teacher), "sha256": _joint_sha256(found, others)},
        preprocessing=_preprocessing(teacher),
        outputs={EMBEDDING: (dim,), **shapes},
    )
    manifest = manifest_for(config, split, origin, dataset, whole=True)
    store = FeatureStore.create(
        config.store_url(split),
        manifest,
        index_of(dataset),
        same_software=config.extract.same_software,
    )
    with store.exclusive():
        given = {EMBEDDING: found, **others}
        written, failed = _write(store, given, rows, dataset, progress, f"import {split}")
    return ExtractReport(
        split=split,
        url=store.url,
        rows=manifest.rows,
        views=views,
        failures=failed,
        extracted=written,
        seconds=time.perf_counter() - began,
        shares={},
    )


def _rows(found: Embeddings, dataset: Dataset, path: str) -> np.ndarray:
    """int64 [N]: row of the file for each row of the data set."""
    if found.keys is not None:
        return _by_key(found.keys, dataset, path)
    given, wanted = found.shape[0], len(dataset)
    if given == wanted:
        return np.arange(wanted)
    # The first rows are the first ones of any file that has more.
    first = dataset.chosen[-1] == wanted - 1 < dataset.source_rows - 1 and given > wanted
    if given != dataset.source_rows and not first:
        raise UsageError(
            f"{path} has {given:,} rows, {dataset.name} has {wanted:,}: without keys the rows must "
            "be the data set's, in its order"
        )
    return dataset.chosen


def _by_key(keys: Sequence[str], dataset: Dataset, path: str) -> np.ndarray:
    if repeated(keys) is not None:
        raise UsageError(f"{path}: the column key names a row more than once")
    known = pa.concat_arrays([_texts(keys, start) for start in range(0, len(keys), BLOCK)])
    parts = [
        pc.index_in(_texts(dataset.keys, start), value_set=known)
        for start in range(0, len(dataset), BLOCK)
    ]
    places = pa.concat_arrays(parts)
    if places.null_count:
        first = dataset.keys[pc.index(places.is_null(), True).as_py()]
        raise UsageError(
            f"{path} has no embedding for {places.null_count:,} of {len(dataset):,} rows of "
            f"{dataset.name}, the first is {first!r}: their keys must agree"
        )
    return np.asarray(places.to_numpy(), dtype=np.int64)


def _texts(keys: Sequence[str], start: int) -> pa.Array:
    return pa.array(keys[start : start + BLOCK], pa.large_string())


def _require_views(found: Embeddings, views: int, path: str) -> int:
    """D, where there are the plan's views."""
    if len(found.shape) > 3:
        raise UsageError(
            f"{path} holds {list(found.shape)}: an embedding is a vector, other shapes are brought "
            "with --output NAME=FILE"
        )
    given = found.shape[1] if len(found.shape) == 3 else 1
    if given != views:
        raise UsageError(
            f"{path} has {given} views a row, the view plan has {views}: set views.count="
            f"{given - 1} (the clean view comes first)"
        )
    return found.shape[-1]


def _other(place: str, path: str, columns: Columns, split: str) -> Embeddings:
    """A further output: a file of its own, or a column of the table at `path`."""
    if place.endswith(".npy"):
        return read_embeddings(place)
    if path.endswith(".npy"):
        raise UsageError(f"--output: {place} is no .npy file, and {path} is no table with columns")
    return read_embeddings(path, replace(columns, embedding=place, nested=False), split=split)


def _other_shape(name: str, other: Embeddings, found: Embeddings, views: int) -> tuple[int, ...]:
    """What a row has of it in one view."""
    if other.shape[0] != found.shape[0]:
        raise UsageError(
            f"--output {name} has {other.shape[0]:,} rows, the embeddings {found.shape[0]:,}: they "
            "must be of the same"
        )
    shape = other.shape[1:]
    if views == 1 and (len(shape) == 1 or shape[0] != 1) and other.order is None:
        return shape
    if len(shape) == 1 or shape[0] != views:
        raise UsageError(
            f"--output {name} holds {list(other.shape)}: with {views} views it must be "
            f"[rows, {views}, ...]"
        )
    return shape[1:]


def _write(
    store: FeatureStore,
    given: Mapping[str, Embeddings],
    rows: np.ndarray,
    dataset: Dataset,
    progress: OpenProgress,
    title: str,
) -> tuple[int, int]:
    """Rows that were written, and how many rows of all have failed."""
    found = store.snapshot()
    if found.complete:
        return 0, len(found.failures)
    done, failed = found.rows, len(found.failures)
    left = store.manifest.rows - done
    if found.pending:
        store.reopen()
    with progress(title, store.manifest.rows, done=done) as shown:
        for note in dataset.notes:
            shown.note(note)
        for shard in found.pending:
            part = store.shards[shard]
            chosen = rows[part.start : part.stop]
            values = {
                name: np.asarray(one.take(chosen), np.float32).reshape(
                    len(part), store.manifest.view_count, *store.manifest.outputs[name]
                )
                for name, one in given.items()
            }
            null = np.any([one.without(chosen) for one in given.values()], axis=0)
            lacking = (part.start + np.flatnonzero(null)).tolist()
            commit = store.write_shard(
                shard,
                values,
                failures=[Failure(row, dataset.keys[row], NO_NUMBERS) for row in lacking],
                versions=software(),
            )
            failed += len(commit.failures)
            done += len(part)
            shown.update(done)
    store.finish()
    return left, failed


def _preprocessing(teacher: ImportedTeacher) -> dict[str, Any]:
    normalize = teacher.normalize
    return {"imported": True, "mean": list(normalize.mean), "std": list(normalize.std)}


def _joint_sha256(found: Embeddings, others: Mapping[str, Embeddings]) -> str:
    """Of the embeddings; with further outputs, of the names and digests of all."""
    own = _sha256(found)
    if not others:
        return own
    listed = [own, *(f"{name} {_sha256(other)}" for name, other in others.items())]
    return hashlib.sha256("\n".join(listed).encode()).hexdigest()


def _sha256(found: Embeddings) -> str:
    """Of the file; of numbers and keys where a library keeps them in files of its own."""
    if found.file is not None:
        return cached_digest([found.file], "embeddings", partial(_file_digest, found.file))
    digest, count = hashlib.sha256(), found.shape[0]
    for start in range(0, count, BATCH_ROWS):
        rows = np.arange(start, min(start + BATCH_ROWS, count))
        digest.update(np.ascontiguousarray(found.take(rows)).data)
    keys = None if found.keys is None else list(found.keys)
    digest.update(json.dumps([found.values.dtype.str, found.shape, keys]).encode())
    return digest.hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
