"""The list of failed rows, as Parquet."""

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq

from egapipe.pipeline.disk.parquet import read_parquet
from egapipe.pipeline.errors import StoreError, one_line
from egapipe.pipeline.store.records.record import Failure

FAILURES_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)


def encode_failures(failures: Iterable[Failure]) -> bytes:
    """Parquet bytes of failures, in the order given."""
    rows = [failure._asdict() for failure in failures]
    return _to_parquet(pa.Table.from_pylist(rows, schema=FAILURES_SCHEMA))


def decode_failures(data: bytes, where: str) -> list[Failure]:
    """The failures in Parquet bytes. Raises StoreError if they are none."""
    table = _from_parquet(data, FAILURES_SCHEMA, where)
    return [Failure(**row) for row in table.to_pylist()]


def _to_parquet(table: pa.Table) -> bytes:
    """One row group and fixed settings: equal tables are equal bytes, however they were built."""
    sink = pa.BufferOutputStream()
    whole = table.replace_schema_metadata(None).combine_chunks()
    pq.write_table(whole, sink, row_group_size=max(1, table.num_rows), compression="zstd")
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _from_parquet(data: bytes, schema: pa.Schema, where: str) -> pa.Table:
    try:
        table = read_parquet(data)
        names = table.schema.names
        # Arrow reads text that is no UTF-8, and fails where it is looked at.
        table.validate(full=True)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise StoreError(f"{where} is damaged: {one_line(error)}") from error
    if not table.schema.equals(schema):
        raise StoreError(f"{where} is damaged: its columns are {names}")
    return table
