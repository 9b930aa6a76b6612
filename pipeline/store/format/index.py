"""The index of a store's rows: a Parquet table whose row groups are read by themselves.

A row group is the rows of one shard. Of a store of more than `layout.INDEX_GROUPS` shards it is as
many shards as it takes for so many groups: what a reader must know of all groups stays a few MB.
"""

import hashlib
import io
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, BinaryIO, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from egapipe.pipeline.errors import StoreError, one_line
from egapipe.pipeline.keys import Keys, repeated
from egapipe.pipeline.locations.ranged import RangedFile
from egapipe.pipeline.store.format import layout
from egapipe.pipeline.store.objects.base import Objects
from egapipe.pipeline.store.records.record import Created, sha256


def _schema(text: pa.DataType) -> pa.Schema:
    return pa.schema(
        [
            pa.field("row", pa.int64(), nullable=False),
            pa.field("key", text, nullable=False),
            pa.field("label", pa.int64(), nullable=False),
            pa.field("source", text, nullable=False),
        ]
    )


INDEX_SCHEMA = _schema(pa.large_string())
# What Parquet says of its text: a row group is small, and older egapipes take nothing else.
_STORED = _schema(pa.string())
# Rows that are compared at a time.
_BLOCK = 1 << 16
# An index of so few bytes is read whole, with its checksum, and kept.
_SMALL = 8 << 20
_PART = 64 << 20
# Blocks of keys: of the shard that is read, and of the next.
_KEPT = 4


class Rows(Protocol):
    """An index that is asked for a part at a time, as a `pa.Table` is."""

    @property
    def num_rows(self) -> int:
        """N."""
        ...

    def slice(self, offset: int, length: int) -> pa.Table:
        """Some rows: row, key, label, source."""
        ...


def plain_part(index: Rows, start: int, stop: int) -> pa.Table:
    """Rows of an index in the types of `INDEX_SCHEMA`. Raises StoreError if they are not such."""
    try:
        part = index.slice(start, stop - start)
        plain: pa.Table = part.select(INDEX_SCHEMA.names).cast(INDEX_SCHEMA)
        plain.validate(full=True)
    except (KeyError, ValueError, pa.ArrowException) as error:
        reason = error.args[0] if error.args else error
        raise StoreError(f"the index has not the columns of a store: {reason}") from error
    return plain


def require_index(index: Rows, rows: int) -> None:
    """Raise StoreError if it is no index of `rows` rows in order, with unique keys."""
    problems = index_problems(index, rows)
    if problems:
        raise StoreError(f"the data set cannot be stored: {problems[0]}")


def index_problems(index: Rows, rows: int) -> list[str]:
    """What is wrong with the content of an index."""
    if index.num_rows != rows:
        return [f"the index has {index.num_rows} rows, the manifest {rows}"]
    problems = []
    if not all(_in_order(index, *block) for block in _blocks(rows)):
        problems.append(f"the index does not list rows 0 to {rows - 1} in order")
    keys = IndexKeys(index)
    twice = repeated(keys)
    if twice is not None:
        problems.append(f"the index has a key twice: {keys[twice[0]]!r}")
    return problems


class IndexKeys(Keys):
    """The keys of an index. Single ones are looked up in blocks of which the last few are kept."""

    def __init__(self, index: Rows, block_rows: int = 1 << 12) -> None:
        """block_rows: keys of a block; where it is a shard, nothing else is read."""
        self._index = index
        self._block_rows = block_rows
        self._block = lru_cache(_KEPT)(self._made_block)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._index.num_rows

    def block(self, start: int, stop: int) -> list[str]:
        """See `Keys`."""
        if stop - start == 1:
            number, place = divmod(start, self._block_rows)
            with self._lock:
                return [self._block(number)[place]]
        return self._texts(start, stop)

    def _made_block(self, number: int) -> list[str]:
        start = number * self._block_rows
        return self._texts(start, min(start + self._block_rows, len(self)))

    def _texts(self, start: int, stop: int) -> list[str]:
        keys: list[str] = plain_part(self._index, start, stop)["key"].to_pylist()
        return keys

    def __reduce__(self) -> tuple[Any, ...]:
        return IndexKeys, (self._index, self._block_rows)


def write_index(index: Rows, shard_rows: int, file: BinaryIO) -> None:
    """Write Parquet: equal tables are equal bytes, however they were built. A row group is in
    memory at a time, and what the file says of each."""
    rows = layout.index_group_rows(index.num_rows, shard_rows)
    with pq.ParquetWriter(
        file,
        _STORED,
        compression="zstd",
        use_dictionary=["label", "source"],
        column_encoding={"row": "DELTA_BINARY_PACKED", "key": "PLAIN"},
        write_statistics=False,
        write_page_checksum=True,
    ) as writer:
        # Whole groups, many of them at a time where they are small.
        several = rows * -(-_BLOCK // rows)
        for start in range(0, index.num_rows, several):
            part = plain_part(index, start, min(start + several, index.num_rows))
            groups = part.replace_schema_metadata(None).combine_chunks().cast(_STORED)
            writer.write_table(groups, row_group_size=rows)


def encode_index(index: Rows, shard_rows: int) -> bytes:
    """What `write_index` writes."""
    file = io.BytesIO()
    write_index(index, shard_rows, file)
    return file.getvalue()


def decode_index(data: bytes, where: str) -> pa.Table:
    """The index in Parquet bytes. Raises StoreError if they are no index."""
    with _explained(where):
        file = _open(pa.BufferReader(data), where)
        # No threads: a pool of threads does not survive a fork.
        table = file.read(use_threads=False).replace_schema_metadata(None).cast(INDEX_SCHEMA)
        # Arrow reads text that is no UTF-8, and fails where it is looked at.
        table.validate(full=True)
        return table


class StoredIndex:
    """The index of a store that exists, see `Rows`.

    A small one is read whole and verified by its checksum; of a large one the row groups that are
    asked for, each page of which has a checksum of its own, and the last is kept. Threads may read.
    """

    def __init__(self, objects: Objects, created: Created, rows: int) -> None:
        self._objects = objects
        self._created = created
        self.num_rows = rows
        self._table: pa.Table | None = None
        self._file: Any = None
        self._starts = np.zeros(1, np.int64)
        self._last: tuple[int, pa.Table] | None = None
        self._lock = threading.Lock()

    def slice(self, offset: int, length: int) -> pa.Table:
        """See `Rows`. Raises StoreError if the index is missing or damaged."""
        with self._lock:
            whole = self._whole()
            if whole is not None:
                return whole.slice(offset, length)
            stop = min(offset + length, self.num_rows)
            parts = [self._group(number) for number in self._groups(offset, stop)]
            first = int(self._starts[self._groups(offset, stop).start])
            return pa.concat_tables(parts).slice(offset - first, stop - offset)

    @property
    def small(self) -> bool:
        """Whether it is read whole. Raises StoreError, as `slice`."""
        with self._lock:
            return self._whole() is not None

    def table(self) -> pa.Table:
        """All rows."""
        return self.slice(0, self.num_rows)

    def keys(self, rows: Sequence[int]) -> list[str]:
        """Keys of some rows; nothing is read where there are none."""
        return [self.slice(int(row), 1)["key"][0].as_py() for row in rows]

    def verify(self) -> None:
        """Raise StoreError unless the stored bytes have the recorded checksum."""
        with self._lock:
            if self._whole() is not None:
                return
        if digest_of(self._objects, layout.INDEX) != self._created.sha256.get(layout.INDEX):
            raise self._damaged("has not the recorded checksum")

    @property
    def _where(self) -> str:
        return self._objects.named(layout.INDEX)

    def _whole(self) -> pa.Table | None:
        """All of a small index; None of a large one, which is open then."""
        if self._table is not None or self._file is not None:
            return self._table
        data = self._objects.part(layout.INDEX, 0, _SMALL + 1)
        if data is None:
            raise self._damaged("is missing")
        if len(data) <= _SMALL:
            if sha256(data) != self._created.sha256.get(layout.INDEX):
                raise self._damaged("has not the recorded checksum")
            self._table = decode_index(data, self._where)
            return self._table
        size = self._objects.sizes(layout.INDEX.partition("/")[0])[layout.INDEX]
        with _explained(self._where):
            source = pa.PythonFile(RangedFile(size, self._part), mode="r")
            file = _open(source, self._where)
        counts = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        self._starts = np.cumsum([0, *counts])
        if self._starts[-1] != self.num_rows:
            raise StoreError(
                f"{self._where} is damaged: it has {self._starts[-1]} rows, the manifest "
                f"{self.num_rows}"
            )
        self._file = file
        return None

    def _part(self, start: int, stop: int) -> bytes:
        return self._objects.part(layout.INDEX, start, stop) or b""

    def _groups(self, start: int, stop: int) -> range:
        """Numbers of the row groups that hold some rows."""
        ends = self._starts[1:]
        first, last = np.searchsorted(ends, [start, max(start, stop - 1)], side="right")
        return range(int(first), int(last) + 1)

    def _group(self, number: int) -> pa.Table:
        if self._last is None or self._last[0] != number:
            with _explained(self._where):
                group = self._file.read_row_group(number, use_threads=False)
                group = group.replace_schema_metadata(None).cast(INDEX_SCHEMA)
                group.validate(full=True)
            self._last = (number, group)
        return self._last[1]

    def _damaged(self, what: str) -> StoreError:
        return StoreError(f"{self._where} {what}: {Created.remedy()}")

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredIndex, (self._objects, self._created, self.num_rows)


def digest_of(objects: Objects, key: str) -> str | None:
    """SHA-256 of an object, of which a part is in memory at a time; None if there is none."""
    digest, start = hashlib.sha256(), 0
    while data := objects.part(key, start, start + _PART):
        digest.update(data)
        start += len(data)
        if len(data) < _PART:
            break
    return None if data is None else digest.hexdigest()


@contextmanager
def _explained(where: str) -> Iterator[None]:
    """Turn what Arrow raises in a block into a StoreError of one line."""
    try:
        yield
    except (OSError, ValueError, pa.ArrowException) as error:
        raise StoreError(f"{where} is damaged: {one_line(error)}") from error


def _open(source: Any, where: str) -> pq.ParquetFile:
    file = pq.ParquetFile(source, page_checksum_verification=True)
    found = file.schema_arrow.remove_metadata()
    if not (found.equals(_STORED) or found.equals(INDEX_SCHEMA)):
        raise StoreError(f"{where} is damaged: its columns are {found.names}")
    return file


def _in_order(index: Rows, start: int, stop: int) -> bool:
    numbers = plain_part(index, start, stop)["row"].to_numpy()
    return np.array_equal(numbers, np.arange(start, stop))


def _blocks(rows: int) -> Iterator[tuple[int, int]]:
    for start in range(0, rows, _BLOCK):
        yield start, min(start + _BLOCK, rows)


def first_difference(one: Rows, other: Rows) -> tuple[str, int, object, object] | None:
    """(column, row, value in the one, in the other) of the first key or label in which two indexes
    of as many rows differ."""
    for start, stop in _blocks(one.num_rows):
        mine, theirs = plain_part(one, start, stop), plain_part(other, start, stop)
        for column in ("key", "label"):
            if mine[column].equals(theirs[column]):
                continue
            pairs = zip(mine[column].to_pylist(), theirs[column].to_pylist(), strict=True)
            for row, (old, new) in enumerate(pairs, start):
                if old != new:
                    return column, row, old, new
    return None
