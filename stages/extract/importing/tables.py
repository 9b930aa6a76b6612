"""Embeddings in a table: a row an image, or an image in one view."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from egapipe.pipeline.datasets.columns import keys as key_texts
from egapipe.pipeline.errors import UsageError

Floats = npt.NDArray[np.floating]

VIEW = "view"


@dataclass(frozen=True)
class Columns:
    """Names of columns. embedding: lists of D floats, or of V lists of D. key: of the rows; a table
    without a column `key` is in the data set's order, but one that is asked for must be there."""

    embedding: str = "embedding"
    key: str = "key"

    def among(self, names: Sequence[str]) -> list[str] | None:
        """Those of a table that are read; None, which is all, if it has no embeddings."""
        used = (self.embedding, self.key, VIEW)
        return [name for name in used if name in names] if self.embedding in names else None


@dataclass(frozen=True)
class Embeddings:
    """values: [N, D] or [N, V, D], a memory map where the file allows it. keys: of the rows, where
    there are any. file: the one that holds nothing else, None for a data set."""

    values: Floats
    keys: Sequence[str] | None
    file: Path | None = None


def from_table(
    table: pa.Table, where: str, columns: Columns, file: Path | None = None
) -> Embeddings:
    """The embeddings of a table; with a column `view`, its rows are put together by their keys.

    where: what to call it. Raises UsageError if a column is missing or of another kind, or if a key
    has not each view once.
    """
    for name, option in ((columns.embedding, "--column"), (columns.key, "--key-column")):
        if name not in table.column_names and name != Columns.key:
            raise UsageError(
                f"{where} has no column {name!r}: it has {', '.join(table.column_names)}, "
                f"choose with {option}"
            )
    values = _values(table[columns.embedding], f"{where}: column {columns.embedding!r}")
    keys = key_texts(table[columns.key], columns.key) if columns.key in table.column_names else None
    if VIEW not in table.column_names or values.ndim == 3:
        return Embeddings(values, keys, file)
    if keys is None:
        raise UsageError(f"{where} has a column {VIEW!r}, but no keys: add a column of them")
    order = _views_of_keys(keys, table[VIEW], where)
    names = [keys[row] for row in order[:, 0]]
    return Embeddings(values[order], names, file)


def _views_of_keys(keys: Sequence[str], view: pa.ChunkedArray, where: str) -> npt.NDArray[np.int64]:
    """int64 [N, V]: the row of each key in each view, keys in the order in which they come."""
    wrong = UsageError(f"{where}: column {VIEW!r} does not number the views of each key from 0")
    if not pa.types.is_integer(view.type) or view.null_count:
        raise wrong
    numbers = view.to_numpy().astype(np.int64)
    places = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    count, rest = divmod(len(keys), max(len(places), 1))
    if rest or not np.isin(numbers, np.arange(count)).all():
        raise wrong
    order = np.full((len(places), count), -1)
    order[[places[key] for key in keys], numbers] = np.arange(len(keys))
    if (order < 0).any():
        raise wrong
    return order


def _values(column: pa.ChunkedArray, where: str) -> Floats:
    """[N, D] or [N, V, D] of a column of lists, of lists of lists, or of tensors."""
    array = column.combine_chunks()
    if isinstance(array, pa.FixedShapeTensorArray):
        shape, array = [len(array), *array.type.shape], array.storage.flatten()
    else:
        # How `datasets` keeps a column of matrices.
        array = array.storage if isinstance(array, pa.ExtensionArray) else array
        shape, array = _flattened(array, where)
    if len(shape) not in (2, 3) or not pa.types.is_floating(array.type):
        raise UsageError(
            f"{where} holds {column.type}: embeddings are lists of floats, or of lists of floats"
        )
    flat: Floats = array.to_numpy(zero_copy_only=False)
    return flat.reshape(shape)


def _flattened(array: pa.Array, where: str) -> tuple[list[int], pa.Array]:
    """The shape of nested lists of equal lengths, and what is in them."""
    shape = [len(array)]
    while _is_list(array.type):
        widths = pc.unique(array.value_lengths()).to_pylist()
        if len(widths) != 1 or not widths[0]:
            raise UsageError(f"{where} has lists of different lengths or none")
        shape.append(widths[0])
        array = array.flatten()
    return shape, array


def _is_list(kind: pa.DataType) -> bool:
    is_kind = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_one(kind) for is_one in is_kind)
