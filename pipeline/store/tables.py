"""Tables of a store: the index of its rows and the list of failed rows, as Parquet."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from egapipe.pipeline.errors import StoreError, one_line
from egapipe.pipeline.store.records import Failure

INDEX_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("label", pa.int64(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
    ]
)
FAILURES_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)


def plain_index(index: pa.Table, rows: int) -> pa.Table:
    """An index in the stored types: row int64, key string, label int64 (-1 = none), source string.

    Raises StoreError if it is not one of `rows` rows in order, with unique keys.
    """
    try:
        plain = index.select(INDEX_SCHEMA.names).cast(INDEX_SCHEMA)
        plain.validate(full=True)
    except (KeyError, ValueError, pa.ArrowException) as error:
        reason = error.args[0] if error.args else error
        raise StoreError(f"the index has not the columns of a store: {reason}") from error
    problems = index_problems(plain, rows)
    if problems:
        raise StoreError(f"the data set cannot be stored: {problems[0]}")
    return plain


def encode_index(index: pa.Table) -> bytes:
    """Parquet bytes of a plain index."""
    return _to_parquet(index)


def index_problems(index: pa.Table, rows: int) -> list[str]:
    """What is wrong with the content of an index."""
    if index.num_rows != rows:
        return [f"the index has {index.num_rows} rows, the manifest {rows}"]
    problems = []
    if not np.array_equal(index["row"].to_numpy(), np.arange(rows)):
        problems.append(f"the index does not list rows 0 to {rows - 1} in order")
    if pc.count_distinct(index["key"]).as_py() != rows:
        problems.append(f"the index has a key twice: {_repeated(index['key'])!r}")
    return problems


def decode_index(data: bytes, where: str) -> pa.Table:
    """The index in Parquet bytes. Raises StoreError if they are no index."""
    return _from_parquet(data, INDEX_SCHEMA, where)


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
        # No threads: a pool of threads does not survive a fork.
        table = pq.read_table(pa.BufferReader(data), use_threads=False)
        names = table.schema.names
        # Arrow reads text that is no UTF-8, and fails where it is looked at.
        table.validate(full=True)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise StoreError(f"{where} is damaged: {one_line(error)}") from error
    if not table.schema.equals(schema):
        raise StoreError(f"{where} is damaged: its columns are {names}")
    return table


def _repeated(keys: pa.ChunkedArray) -> str:
    counts = keys.value_counts()
    twice = counts.filter(pc.greater(pc.struct_field(counts, "counts"), 1))
    key: str = twice[0]["values"].as_py()
    return key
