"""The samples of a tar, found once a node and remembered while the tar stays the same."""

import json

import pyarrow as pa
import pyarrow.parquet as pq

from egapipe.pipeline.datasets.files.tarscan import Sample, scan
from egapipe.pipeline.disk.caches import TARS
from egapipe.pipeline.disk.parquet import read_parquet
from egapipe.pipeline.disk.remembered import remembered

# Changes when the same tar would give other samples.
_METHOD = "egapipe tar index 2"
_SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "label": pa.string(),
        "offset": pa.int64(),
        "size": pa.int64(),
        "problem": pa.string(),
    }
)


def tar_index(path: str, image: str | None, label_field: str) -> pa.Table:
    """A row a sample: key, label, offset and size (bytes) of its image, problem; see `scan`.

    path: or URL. Raises UsageError and MachineError as `scan` does.
    """
    return remembered(
        TARS,
        [path],
        json.dumps([_METHOD, image, label_field]),
        lambda: _table(scan(path, image, label_field)),
        encode=_encode,
        decode=_decode,
    )


def _table(samples: list[Sample]) -> pa.Table:
    columns = zip(*samples, strict=True) if samples else [()] * len(_SCHEMA)
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, _SCHEMA, strict=True)], _SCHEMA)


def _encode(table: pa.Table) -> bytes:
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    data: bytes = buffer.getvalue().to_pybytes()
    return data


def _decode(data: bytes) -> pa.Table | None:
    try:
        table = read_parquet(data)
    except (OSError, pa.ArrowException):
        return None
    return table if table.schema.equals(_SCHEMA) else None
