"""The samples of a tar, found once a node and remembered while the tar stays the same."""

import hashlib
import json
import logging
import os
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from egapipe.pipeline.datasets.tarscan import Sample, scan
from egapipe.pipeline.errors import EgapipeError, UsageError
from egapipe.pipeline.files import replace_file
from egapipe.pipeline.paths import cache_dir

_log = logging.getLogger(__name__)
# Changes when the same tar would give other samples.
_METHOD = "egapipe tar index 1"
_SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "label": pa.int64(),
        "offset": pa.int64(),
        "size": pa.int64(),
        "problem": pa.string(),
    }
)
# A tar written twice within its clock's step keeps its time stamp.
_SETTLED_NS = 2_000_000_000


def tar_index(path: Path, image: str | None, label_field: str) -> pa.Table:
    """A row a sample: key, label, offset and size (bytes) of its image, problem; see `scan`.

    Raises UsageError as `scan` does. A cache folder that cannot be written only means that nothing
    is remembered.
    """
    try:
        stat = os.stat(path)
    except OSError as error:
        raise UsageError(f"tar {path} cannot be read: {error.strerror}") from None
    state = [_METHOD, str(path), stat.st_size, stat.st_mtime_ns, image, label_field]
    name = hashlib.sha256(json.dumps(state).encode()).hexdigest()
    entry = cache_dir() / "tars" / f"{name}.parquet"
    known = _read(entry)
    if known is not None:
        return known
    table = _table(scan(path, image, label_field))
    if stat.st_mtime_ns < time.time_ns() - _SETTLED_NS:
        _write(entry, table)
    return table


def _table(samples: list[Sample]) -> pa.Table:
    columns = zip(*samples, strict=True) if samples else [()] * len(_SCHEMA)
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, _SCHEMA, strict=True)], _SCHEMA)


def _read(entry: Path) -> pa.Table | None:
    try:
        table = pq.read_table(entry)
    except (OSError, pa.ArrowException):
        return None
    return table if table.schema.equals(_SCHEMA) else None


def _write(entry: Path, table: pa.Table) -> None:
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        replace_file(entry, buffer.getvalue().to_pybytes())
    except (OSError, EgapipeError) as error:
        _log.warning("the index of a tar is not remembered, it will be made again: %s", error)
