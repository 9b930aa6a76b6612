"""Images in parquet files, read in place: a row group at a time, nothing is copied."""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from egapipe.pipeline.config.data import ParquetSource
from egapipe.pipeline.datasets import columns
from egapipe.pipeline.datasets.base import UNLABELLED, Labels
from egapipe.pipeline.datasets.classes import Classes
from egapipe.pipeline.datasets.loading import File, explained, parquet_files, split_keys, split_name
from egapipe.pipeline.datasets.reading import of_machine
from egapipe.pipeline.datasets.rowpaths import RowPaths
from egapipe.pipeline.datasets.rows import Rows, RowsDataset
from egapipe.pipeline.errors import ImageError, UsageError, one_line
from egapipe.pipeline.keys import Keys
from egapipe.pipeline.locations.remote import at_once

KEPT_BYTES = 1 << 28
"""Decoded row groups that a process keeps: all of a small data set, a few of a large one."""


class ParquetDataset(RowsDataset):
    """Rows of parquet files, file after file, as the split says.

    An image is the row's bytes or, without them, the file at its path. Reading one row decodes its
    row group, which is kept for its neighbours.
    """

    def __init__(self, source: ParquetSource) -> None:
        """Raises UsageError: no such file or column, another split, files of different columns."""
        files = parquet_files(source)
        self._paths = [file.path for file in files]
        source = source.model_copy(update={"files": self._paths})
        where = f"parquet files {source.files[0]}, split {source.split!r}"
        with explained(where):
            features = _features(files[0].metadata.schema.to_arrow_schema())
            keys, self._places = _split(source.split, sum(f.metadata.num_rows for f in files))
        if not keys:
            raise UsageError(f"{where}: corresponds to no data")
        self._image = columns.image_column(features, source.image_column)
        label = columns.label_column(features, source.label_column)
        key = columns.key_column(features, source.key_column)
        with explained(where):
            wanted = [name for name in (label, key) if name is not None]
            table = _read(files, [*wanted, self._image], wanted).take(self._places)
        name = f"parquet/{source.split}"
        if key is not None:
            keys = columns.keys(table.column(key), key)
        columns.check_unique(keys, f"data set {name}")
        classes = Classes(np.full(len(keys), UNLABELLED, dtype=np.int64), None)
        if label is not None:
            known = columns.class_names(features[label]) or source.class_names
            classes = columns.classes(table.column(label), label, known)
        super().__init__(source, Rows(name, keys, *classes))
        self._groups = _Groups(files, self._image)
        self._files = RowPaths.of(source)
        self._files.check(self._outside, f"data set {self.name}")

    def files(self) -> Sequence[str]:
        """The parquet files, and the image files that rows without bytes point to."""
        return [*self._paths, *(self._files.absolute(path) for path in self._outside)]

    @cached_property
    def _outside(self) -> list[str]:
        """The paths of rows without bytes."""
        return list(self._groups.paths_without_bytes())

    def _read(self, row: int) -> bytes:
        return self._files.content(*self._groups.read(int(self._places[row])))


class _Groups:
    """The image column of all row groups, decoded when a row of it is asked for.

    Threads may read at once, and do not decode a group twice at a time. No file stays open.
    """

    def __init__(self, files: Sequence[File], column: str) -> None:
        self._column = column
        self._groups = [(f, g) for f in files for g in range(f.metadata.num_row_groups)]
        sizes = [file.metadata.row_group(group).num_rows for file, group in self._groups]
        self._starts = np.cumsum([0, *sizes])
        self._kept: OrderedDict[int, pa.Array] = OrderedDict()
        self._lock = threading.Lock()
        self._decoding: dict[int, threading.Lock] = {}

    def read(self, row: int) -> tuple[bytes | None, str | None]:
        """Bytes and path of a row of the files. Raises ImageError if its group is damaged."""
        # An empty group has its start in common with the next: the last one has the row.
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        try:
            value = self._group(number)[row - int(self._starts[number])].as_py()
        except UnicodeDecodeError:
            raise ImageError("the row's path is no UTF-8") from None
        if isinstance(value, bytes):
            return value, None
        if isinstance(value, str):
            return None, value
        return (None, None) if value is None else (value.get("bytes"), value.get("path"))

    def paths_without_bytes(self) -> Iterator[str]:
        """Of all rows; only groups that may have such rows are read."""
        for number, (file, group) in enumerate(self._groups):
            if _has_all_bytes(file.metadata.row_group(group), self._column):
                continue
            start, stop = self._starts[number : number + 2]
            for row in range(int(start), int(stop)):
                data, path = self.read(row)
                if data is None and path is not None:
                    yield path

    def _group(self, number: int) -> pa.Array:
        with self._lock:
            if number in self._kept:
                self._kept.move_to_end(number)
                return self._kept[number]
            turn = self._decoding.setdefault(number, threading.Lock())
        with turn:
            with self._lock:
                if number in self._kept:
                    return self._kept[number]
            column = self._decoded(number)
            with self._lock:
                self._kept[number] = column
                self._decoding.pop(number, None)
                while len(self._kept) > 1 and self._size() > KEPT_BYTES:
                    self._kept.popitem(last=False)
            return column

    def _size(self) -> int:
        return sum(column.nbytes for column in self._kept.values())

    def _decoded(self, number: int) -> pa.ChunkedArray:
        file, group = self._groups[number]
        try:
            with file.open() as opened:
                table = opened.read_row_group(group, [self._column], use_threads=False)
                return table.column(self._column)
        except (OSError, pa.ArrowException, MemoryError) as error:
            if of_machine(error):
                raise
            # Without the path, which Arrow says: a reason is the same on every machine.
            gone = isinstance(error, FileNotFoundError)
            what = "is not there" if gone else f"has a damaged row group {group}"
            raise ImageError(f"the parquet file {what}") from error


def _has_all_bytes(group: Any, column: str) -> bool:
    """Whether the footer says that no row of a group lacks bytes."""
    for index in range(group.num_columns):
        chunk = group.column(index)
        if chunk.path_in_schema in (f"{column}.bytes", column):
            known = chunk.statistics
            return bool(known is not None and known.has_null_count and known.null_count == 0)
    return False


def _features(schema: pa.Schema) -> Mapping[str, Any]:
    """What each column holds, as `datasets` has written it, else by its type."""
    plain = [
        field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
        for field in schema
    ]
    features: Mapping[str, Any] = datasets.Features.from_arrow_schema(
        pa.schema(plain, schema.metadata)
    )
    return features


def _split(split: str, rows: int) -> tuple[Keys, Labels]:
    """Keys `<split>/<row of all files>` of a split in `datasets` syntax, and int64 [N] the rows."""
    instruction = datasets.ReadInstruction.from_spec(split_spec(split))
    parts = instruction.to_absolute({split_name(split): rows})
    places = [np.arange(part.from_, part.to) for part in parts]
    return split_keys(parts), np.concatenate(places).astype(np.int64)


def split_spec(split: str) -> str:
    """`all` is the one split that there is."""
    return split_name(split) if split == "all" else split


def _read(files: Sequence[File], needed: Sequence[str], wanted: Sequence[str]) -> pa.Table:
    """Some columns of all files, one after the other. Raises ValueError, Arrow's errors, OSError.

    needed: columns that every file must have.
    """
    tables = at_once(partial(_columns, needed=needed, wanted=wanted), files)
    return pa.concat_tables(tables, promote_options="permissive")


def _columns(file: File, needed: Sequence[str], wanted: Sequence[str]) -> pa.Table:
    names = file.metadata.schema.to_arrow_schema().names
    missing = [name for name in needed if name not in names]
    if missing:
        raise ValueError(f"{file.path} has no column {missing[0]!r}: {', '.join(names)}")
    try:
        with file.open() as opened:
            table = opened.read(list(wanted), use_threads=False)
    except pa.ArrowException as error:
        raise ValueError(f"{file.path} is damaged: {one_line(error)}") from None
    # Of no columns a table would have no rows either.
    table = table.append_column("", pa.nulls(file.metadata.num_rows))
    return _without_dictionaries(table)


def _without_dictionaries(table: pa.Table) -> pa.Table:
    """Files have dictionaries of their own."""
    for index, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            column = pc.cast(table.column(index), field.type.value_type)
            table = table.set_column(index, field.name, column)
    return table
