"""Arrays in .npy files, which may come from elsewhere."""

import math
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from egapipe.pipeline.errors import UsageError, one_line

# numpy parses the header as a Python literal, and lets what its tokenizer says through.
_DAMAGED = (
    OSError,
    ValueError,
    EOFError,
    TokenError,
    SyntaxError,
    TypeError,
    OverflowError,
    MemoryError,
)


def mapped_npy(file: Path) -> npt.NDArray[Any]:
    """The array of a .npy file, mapped and read-only; no object is unpickled.

    Raises UsageError, in one line, if there is none, it is no regular file, or it is damaged.
    """
    if not file.is_file():
        raise UsageError(f"{file} cannot be read as .npy: it is no regular file")
    try:
        found = np.load(file, mmap_mode="r", allow_pickle=False)
    except _DAMAGED as error:
        raise UsageError(f"{file} cannot be read as .npy: {one_line(error)}") from None
    if not isinstance(found, np.ndarray):
        found.close()
        raise UsageError(f"{file} cannot be read as .npy: it is an archive of arrays")
    return found


class NpyLayout(NamedTuple):
    """Where the rows of a .npy file lie. shape: of the whole array. offset: of its first byte."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self.offset + self.shape[0] * self.row_bytes


def npy_layout(file: BinaryIO) -> NpyLayout:
    """What the header of an open .npy file says, row after row. No object is unpickled.

    Raises ValueError if it is none, has no rows, objects for values or columns first.
    """
    try:
        shape, by_columns, dtype = _header(file)
    except UnicodeDecodeError:
        raise ValueError("its header is damaged") from None
    except _DAMAGED as error:
        raise ValueError(one_line(error)) from None
    if dtype.hasobject or dtype.names is not None:
        raise ValueError(f"it holds {dtype}, not numbers")
    if not shape or min(shape) < 1:
        raise ValueError(f"its shape is {list(shape)}: it has no rows")
    if by_columns and len(shape) > 1:
        raise ValueError("it lies column after column: save np.ascontiguousarray of it")
    return NpyLayout(shape, dtype, file.tell())


def _header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f"its version {version[0]}.{version[1]} is not known")
