"""Arrays in .npy files, read in place: a row is a slice of a file."""

from bisect import bisect_right
from itertools import accumulate
from typing import Any

import numpy as np

from egapipe.pipeline.datasets.decoding.reading import attempt, read_slice
from egapipe.pipeline.datasets.files.datafile import open_data
from egapipe.pipeline.datasets.files.patterns import matches
from egapipe.pipeline.disk.arrays import NpyLayout, npy_layout
from egapipe.pipeline.errors import UsageError, one_line
from egapipe.pipeline.locations.remote import at_once


class NpyFiles:
    """Rows of .npy files, file after file, all of one shape and type."""

    def __init__(self, patterns: list[str]) -> None:
        """Raises UsageError: no such file, a damaged one, or files that differ."""
        self.files = [file for pattern in patterns for file in _matches(pattern)]
        self._layouts = at_once(_layout, self.files)
        first = self._layouts[0]
        for file, layout in zip(self.files, self._layouts, strict=True):
            if (layout.shape[1:], layout.dtype) != (first.shape[1:], first.dtype):
                raise UsageError(
                    f"{file} holds {layout.dtype} {list(layout.shape[1:])} a row, {self.files[0]} "
                    f"{first.dtype} {list(first.shape[1:])}: rows of one shape are read"
                )
        self.shape, self.dtype = first.shape[1:], first.dtype
        self._ends = list(accumulate(layout.shape[0] for layout in self._layouts))
        self.rows = self._ends[-1]

    def read(self, row: int) -> bytes:
        """See `Stored`."""
        number = bisect_right(self._ends, row)
        inner = row - (self._ends[number - 1] if number else 0)
        layout = self._layouts[number]
        start = layout.offset + inner * layout.row_bytes
        return read_slice(self.files[number], start, layout.row_bytes)


def npy_numbers(file: str) -> np.ndarray[Any, Any]:
    """int64 [N]: the whole numbers of a .npy file. Raises UsageError for anything else."""
    [name] = _matches(file)
    layout = _layout(name)
    if layout.dtype.kind not in "iu" or len(layout.shape) != 1:
        raise UsageError(
            f"{name} holds {layout.dtype} {list(layout.shape)}: labels are whole numbers [N]"
        )
    data = read_slice(name, layout.offset, layout.row_bytes * layout.shape[0])
    return np.frombuffer(data, layout.dtype).astype(np.int64)


def _matches(pattern: str) -> list[str]:
    found = matches(pattern)
    if not found:
        raise UsageError(f"no .npy file matches {pattern!r}: check dataset files")
    return found


def _layout(file: str) -> NpyLayout:
    def read() -> NpyLayout:
        with open_data(file) as opened:
            layout = npy_layout(opened)
            length = opened.seek(0, 2)
        if length != layout.size:
            raise ValueError(f"it has {length:,} bytes, its header asks for {layout.size:,}")
        return layout

    try:
        return attempt(read)
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} cannot be read as .npy: {one_line(error)}") from None
