"""The row groups of parquet files: a column of them, decoded a group at a time."""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from egapipe.pipeline.datasets.decoding.reading import of_machine
from egapipe.pipeline.datasets.kinds.loading import File
from egapipe.pipeline.errors import ImageError, UsageError

KEPT_BYTES = 1 << 28
"""Decoded row groups that a process keeps: all of a small data set, a few of a large one."""


class Groups:
    """The image column of all row groups, decoded when a row of it is asked for.

    Threads may read at once, and do not decode a group twice at a time. No file stays open. To
    another process travel paths and where each group starts: a footer is read there with the first
    group of its file, and must say the same.
    """

    def __init__(self, files: Sequence[File], column: str) -> None:
        """files: with their footers."""
        counts = [file.rows_of_groups for file in files]
        self._column = column
        self._files = list(files)
        self._firsts = np.cumsum([0, *map(len, counts)])
        self._starts = np.cumsum([0, *(rows for groups in counts for rows in groups)])
        self._open_anew()

    def __getstate__(self) -> dict[str, Any]:
        told = [file.without_footer() for file in self._files]
        return {
            "_column": self._column,
            "_files": told,
            "_firsts": self._firsts,
            "_starts": self._starts,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open_anew()

    def read(self, row: int) -> tuple[bytes | None, str | None]:
        """Bytes and path of a row of the files. Raises ImageError if its group is damaged."""
        try:
            value = self.value(row).as_py()
        except UnicodeDecodeError:
            raise ImageError("the row's path is no UTF-8") from None
        if isinstance(value, bytes):
            return value, None
        if isinstance(value, str):
            return None, value
        return (None, None) if value is None else (value.get("bytes"), value.get("path"))

    def value(self, row: int) -> pa.Scalar:
        """What the column has in a row of the files. Raises ImageError if its group is damaged."""
        # An empty group has its start in common with the next: the last one has the row.
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self._group(number)[row - int(self._starts[number])]

    def paths_without_bytes(self) -> Iterator[str]:
        """Of all rows; only groups that may have such rows are read."""
        for number in range(len(self._starts) - 1):
            file, group = self._place(number)
            if _has_all_bytes(file.footer.row_group(group), self._column):
                continue
            start, stop = self._starts[number : number + 2]
            for row in range(int(start), int(stop)):
                data, path = self.read(row)
                if data is None and path is not None:
                    yield path

    def _open_anew(self) -> None:
        self._kept: OrderedDict[int, pa.Array] = OrderedDict()
        self._lock = threading.Lock()
        self._decoding: dict[int, threading.Lock] = {}

    def _place(self, number: int) -> tuple[File, int]:
        """A group's file, and its number in there."""
        file = int(np.searchsorted(self._firsts, number, side="right")) - 1
        return self._files[file], number - int(self._firsts[file])

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
        file, group = self._place(number)
        rows = int(self._starts[number + 1] - self._starts[number])
        try:
            with file.open() as opened:
                if file.metadata is None:
                    _check_same(file, opened, group, rows)
                table = opened.read_row_group(group, [self._column], use_threads=False)
                return table.column(self._column)
        except (OSError, pa.ArrowException, MemoryError) as error:
            if of_machine(error):
                raise
            gone = isinstance(error, FileNotFoundError)
            if file.metadata is None and gone:
                raise _another(file, "it is not there") from error
            # Without the path, which Arrow says: a reason is the same on every machine.
            what = "is not there" if gone else f"has a damaged row group {group}"
            raise ImageError(f"the parquet file {what}") from error


def _check_same(file: File, opened: Any, group: int, rows: int) -> None:
    """Raise UsageError unless a file that this process did not list is as it was."""
    groups = opened.metadata.num_row_groups
    there = opened.metadata.row_group(group).num_rows if group < groups else 0
    if there != rows:
        raise _another(file, f"{there} rows in group {group} in place of {rows}")


def _another(file: File, found: str) -> UsageError:
    return UsageError(
        f"{file.path} is not here what it was where the extraction was started ({found}): make "
        "the same files visible to every host"
    )


def _has_all_bytes(group: Any, column: str) -> bool:
    """Whether the footer says that no row of a group lacks bytes."""
    for index in range(group.num_columns):
        chunk = group.column(index)
        if chunk.path_in_schema in (f"{column}.bytes", column):
            known = chunk.statistics
            return bool(known is not None and known.has_null_count and known.null_count == 0)
    return False
