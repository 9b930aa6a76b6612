"""Exporting a store to one file that other programs read: `.parquet`, or `.npy` with its keys."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from egapipe.pipeline.disk.files import whole_file
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.locations.urls import local_path
from egapipe.pipeline.store.format.dtypes import NUMPY, to_floats
from egapipe.pipeline.store.objects.base import unusable
from egapipe.pipeline.store.objects.location import Place
from egapipe.pipeline.store.store import FeatureStore

Progress = Callable[[int, int], None]
Numbers = npt.NDArray[Any]

KEYS = ".txt"
_REMEDY = "choose another place for the file"


@dataclass(frozen=True)
class Part:
    """A shard: its rows, and their embeddings in the views that are exported.

    values: [rows, views, *shape], float16 or float32; NaN in failed rows.
    """

    rows: range
    values: Numbers


def export_store(
    place: Place,
    out: str,
    *,
    name: str = "embedding",
    view: int | None = None,
    progress: Progress = lambda done, planned: None,
) -> list[Path]:
    """Write an array of a complete store to `out`, shard by shard; the files that were written.

    out: `.parquet` with columns key, label, view and embedding, a fixed-size list of D numbers, a
    row an embedding; or `.npy` [N, V, *shape], with the keys in a `.txt` beside it, one a line.
    view: only this one ([N, *shape] as `.npy`); default: all. Numbers are the stored ones, exactly:
    float16 and float32 as they are, bfloat16 as float32. Failed rows are NaN.
    Memory: one shard and the index. A file is renamed into place when it is whole.

    Raises UsageError (another format, a file that exists, no such view, keys with line breaks) or
    StoreError (no complete store, no such array, damaged, the file cannot be written).
    """
    file = _target(out)
    store = FeatureStore.open(place)
    store.require_output(name)
    views = _views(store, view)
    parts = _parts(store, name, views, progress)
    try:
        if file.suffix == ".parquet":
            _write_parquet(file, store, views, parts)
            return [file]
        keys = _key_lines(store)
        _write_npy(file, store, name, view, parts)
        with _whole(file.with_suffix(KEYS)) as stream:
            stream.write(keys)
    except OSError as error:
        raise unusable("write", out, error, _REMEDY) from error
    return [file, file.with_suffix(KEYS)]


def _target(out: str) -> Path:
    place = local_path(out)
    if place is None:
        raise UsageError(f"cannot export to {out}: give a local file and copy it there")
    file = Path(place).absolute()
    if file.suffix not in (".parquet", ".npy"):
        raise UsageError(f"cannot export to {out}: its name must end in .parquet or .npy")
    written = [file, file.with_suffix(KEYS)] if file.suffix == ".npy" else [file]
    for path in written:
        if path.exists():
            raise UsageError(f"{path} exists: remove it or {_REMEDY}")
    return file


def _views(store: FeatureStore, view: int | None) -> range:
    count = store.manifest.view_count
    if view is None:
        return range(count)
    if not 0 <= view < count:
        raise UsageError(f"store {store.url} has no view {view}: it has 0 to {count - 1}")
    return range(view, view + 1)


def _parts(store: FeatureStore, name: str, views: range, progress: Progress) -> Iterator[Part]:
    commits, dtype = store.finished().commits, store.manifest.dtype
    for shard, rows in enumerate(store.shards):
        chunk = store.chunks.read(commits[shard], name)
        part = chunk[: len(rows), views.start : views.stop]
        yield Part(rows, to_floats(part, dtype) if dtype == "bfloat16" else part)
        progress(shard + 1, len(store.shards))


def _write_parquet(file: Path, store: FeatureStore, views: range, parts: Iterator[Part]) -> None:
    """One row group a shard."""
    with _whole(file) as stream:
        writer = None
        try:
            for part in parts:
                labels = store.listing.slice(part.rows.start, len(part.rows))
                table = _table(labels.select(["key", "label"]), views, part)
                # Embeddings are noise to a compressor, and no two numbers repeat.
                writer = writer or pq.ParquetWriter(
                    stream, table.schema, compression="none", use_dictionary=["key"]
                )
                writer.write_table(table, row_group_size=table.num_rows)
        finally:
            if writer is not None:
                writer.close()


def _table(labels: pa.Table, views: range, part: Part) -> pa.Table:
    """A row an embedding: the views of a row follow each other."""
    rows = len(part.rows)
    # Of one shard: other programs know text better with 32-bit offsets.
    labels = labels.cast(pa.schema([("key", pa.string()), ("label", pa.int64())]))
    repeated = labels.take(np.repeat(np.arange(rows), len(views)))
    values = np.ascontiguousarray(part.values).reshape(rows * len(views), -1)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
    view = pa.array(np.tile(np.array(views, np.int32), rows))
    return repeated.append_column("view", view).append_column("embedding", lists)


def _write_npy(
    file: Path, store: FeatureStore, name: str, view: int | None, parts: Iterator[Part]
) -> None:
    manifest = store.manifest
    views = (manifest.view_count,) if view is None else ()
    dtype = np.dtype("<f4") if manifest.dtype == "bfloat16" else NUMPY[manifest.dtype]
    header = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": (manifest.rows, *views, *manifest.outputs[name]),
    }
    with _whole(file) as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for part in parts:
            stream.write(np.ascontiguousarray(part.values).data)


def _key_lines(store: FeatureStore) -> bytes:
    keys: list[str] = store.index()["key"].to_pylist()
    for key in keys:
        if len(key.splitlines()) > 1 or key.endswith(("\n", "\r")):
            raise UsageError(f"key {key!r} has a line break: export to .parquet instead of .npy")
    return "".join(f"{key}\n" for key in keys).encode()


@contextmanager
def _whole(file: Path) -> Iterator[BinaryIO]:
    """See `whole_file`; the folder is made if there is none."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(file) as stream:
        yield stream
