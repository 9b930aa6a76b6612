"""Lists of numbers in record batches as one array on disk, rows without numbers marked."""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from egapipe.pipeline.disk.paths import cache_dir
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.store.objects.base import unusable

Floats = npt.NDArray[np.floating]
Nulls = npt.NDArray[np.bool_]

BATCH_ROWS = 4096
"""Rows of a table that are in memory at a time."""


def spooled(batches: Iterable[pa.Array], where: str) -> tuple[Floats, Nulls]:
    """[N, D], [N, V, D] or more of batches of lists, of lists of lists, or of tensors, in a file
    without a name that is mapped; and bool [N], True where a row has a null, its numbers NaN.

    Memory: a batch. Raises UsageError if they are anything else, or of different lengths, and
    StoreError if there is no room in this node's cache folder.
    """
    with _writing():
        cache_dir().mkdir(parents=True, exist_ok=True)
        file = tempfile.TemporaryFile(dir=cache_dir())  # noqa: SIM115  (closed below)
    with file:
        spool = _Spool(file, where)
        for batch in batches:
            spool.add(batch)
        return spool.mapped()


@contextmanager
def _writing() -> Iterator[None]:
    """What comes of the file, not of the table that is read meanwhile."""
    try:
        yield
    except OSError as error:
        remedy = "set store.cache_dir to a larger place"
        raise unusable("write", str(cache_dir()), error, remedy) from error


@dataclass
class _Spool:
    file: IO[bytes]
    where: str
    shape: tuple[int, ...] | None = None
    """Of a row; None until there is one with numbers."""
    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype(np.float32))
    nulls: list[Nulls] = field(default_factory=list)
    waiting: int = 0
    """Rows of nulls before the first numbers."""

    def add(self, array: pa.Array) -> None:
        values, null = rows_of(array, self.where)
        self.nulls.append(null)
        if values is None:
            self._add_nulls(len(null))
            return
        if self.shape is None:
            self.shape, self.dtype = values.shape[1:], values.dtype
            self._add_nulls(self.waiting)
        if values.shape[1:] != self.shape:
            raise different(self.where)
        with _writing():
            self.file.write(np.ascontiguousarray(values, self.dtype).data)

    def mapped(self) -> tuple[Floats, Nulls]:
        null = np.concatenate(self.nulls) if self.nulls else np.empty(0, np.bool_)
        if self.shape is None:
            raise UsageError(f"{self.where} has no numbers")
        with _writing():
            self.file.flush()
            shape = (len(null), *self.shape)
            return np.memmap(self.file, self.dtype, mode="r", shape=shape), null

    def _add_nulls(self, count: int) -> None:
        if self.shape is None:
            self.waiting += count
            return
        row = np.full(self.shape, np.nan, self.dtype).tobytes()
        with _writing():
            for _ in range(count):
                self.file.write(row)


def rows_of(array: pa.Array, where: str) -> tuple[Floats | None, Nulls]:
    """[n, D], [n, V, D] or more of one batch, None if no row has numbers; and bool [n], True for
    nulls.

    A null in place of a row, of a list in it or of a number makes the whole row one.
    """
    kind = array.type
    tensor = tuple(kind.shape) if isinstance(array, pa.FixedShapeTensorArray) else None
    # How `datasets` keeps a column of matrices.
    storage = array.storage if isinstance(array, pa.ExtensionArray) else array
    unfit = UsageError(
        f"{where} holds {kind}: embeddings are lists of floats, or of lists of floats"
    )
    if not _holds_floats(storage.type):
        raise unfit
    null, kept = np.zeros(len(storage), np.bool_), np.arange(len(storage))
    while True:
        found = _null_rows(storage, where)
        if not len(found):
            break
        null[kept[found]] = True
        whole = np.ones(len(storage), np.bool_)
        whole[found] = False
        storage, kept = storage.filter(pa.array(whole)), kept[whole]
    if not len(kept):
        return None, null
    shape, flat = _flattened(storage, where)
    numbers = flat.to_numpy(zero_copy_only=False)
    part = numbers.reshape(len(kept), *(tensor or shape[1:]))
    if part.ndim < 2:
        raise unfit
    values = np.full((len(null), *part.shape[1:]), np.nan, numbers.dtype)
    values[kept] = part
    return values, null


def different(where: str) -> UsageError:
    """Rows cannot be put into one array."""
    return UsageError(f"{where} has lists of different lengths or none")


def _null_rows(array: pa.Array, where: str) -> npt.NDArray[np.int64]:
    """Rows with a null at the outermost level that has any."""
    rows, width = len(array), 1
    while True:
        if array.null_count:
            places = np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))
            return np.unique(places // width)
        if not _is_list(array.type) or not rows:
            return np.empty(0, np.int64)
        width *= _length(array, where)
        array = array.flatten()


def _flattened(array: pa.Array, where: str) -> tuple[list[int], pa.Array]:
    """The shape of nested lists of equal lengths without nulls, and what is in them."""
    shape = [len(array)]
    while _is_list(array.type):
        shape.append(_length(array, where))
        array = array.flatten()
    return shape, array


def _length(lists: pa.Array, where: str) -> int:
    """What all lists have in common."""
    lengths: list[int] = pc.unique(lists.value_lengths()).to_pylist()
    if len(lengths) != 1 or not lengths[0]:
        raise different(where)
    return lengths[0]


def _holds_floats(kind: pa.DataType) -> bool:
    levels = 0
    while _is_list(kind):
        kind, levels = kind.value_type, levels + 1
    return levels > 0 and pa.types.is_floating(kind)


def _is_list(kind: pa.DataType) -> bool:
    is_kind = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_one(kind) for is_one in is_kind)
