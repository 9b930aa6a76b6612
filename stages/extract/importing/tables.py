"""Embeddings in a table: a row an image, or an image in one view."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from egapipe.pipeline.datasets.kinds.columns import keys as key_texts
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.keys import taken
from egapipe.stages.extract.importing.spool import Floats, Nulls, spooled

Rows = npt.NDArray[np.int64]
Order = npt.NDArray[np.int64]

VIEW = "view"


@dataclass(frozen=True)
class Columns:
    """Names of columns. embedding: lists of D floats, or of V lists of D. key: of the rows; a table
    without a column `key` is in the data set's order, but one that is asked for must be there.
    nested: whether lists of lists are the views of a row, even where there is a column `view`."""

    embedding: str = "embedding"
    key: str = "key"
    nested: bool = True


@dataclass(frozen=True)
class Embeddings:
    """values: [M, *shape] or [M, V, *shape], mapped from a file. keys: of the N rows, where there
    are any. file: the one that holds nothing else, None for a data set. order: int64 [N, V], the
    entries of `values` that are the views of a row, where each view has an entry of its own. null:
    bool [M], entries without numbers."""

    values: Floats
    keys: Sequence[str] | None
    file: Path | None = None
    order: Order | None = None
    null: Nulls | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """[N, *shape] or [N, V, *shape]."""
        if self.order is None:
            return self.values.shape
        return (*self.order.shape, *self.values.shape[1:])

    def take(self, rows: Rows) -> Floats:
        """[n, *shape] or [n, V, *shape] of some rows, a copy."""
        taken: Floats = self.values[rows if self.order is None else self.order[rows]]
        return taken

    def without(self, rows: Rows) -> Nulls:
        """bool [n]: which of some rows have a null in place of numbers."""
        if self.null is None:
            return np.zeros(len(rows), np.bool_)
        if self.order is None:
            return self.null[rows]
        return np.asarray(self.null[self.order[rows]].any(axis=1))


class Table(Protocol):
    """A table of which a column is read at once, or batch after batch."""

    @property
    def names(self) -> Sequence[str]:
        """Of the columns."""
        ...

    def column(self, name: str) -> pa.ChunkedArray:
        """All of a column."""
        ...

    def batches(self, name: str) -> Iterator[pa.Array]:
        """A column, `BATCH_ROWS` or fewer rows at a time."""
        ...


def from_table(table: Table, where: str, columns: Columns, file: Path | None = None) -> Embeddings:
    """The embeddings of a table; with a column `view`, its rows are put together by their keys.

    where: what to call it. Raises UsageError if a column is missing or of another kind, or if a key
    has not each view once.
    """
    for name, option in ((columns.embedding, "--column"), (columns.key, "--key-column")):
        if name not in table.names and name != Columns.key:
            raise UsageError(
                f"{where} has no column {name!r}: it has {', '.join(table.names)}, "
                f"choose with {option}"
            )
    named = f"{where}: column {columns.embedding!r}"
    values, null = spooled(table.batches(columns.embedding), named)
    keys = None
    if columns.key in table.names:
        keys = key_texts(table.column(columns.key), columns.key)
    if VIEW not in table.names or (columns.nested and values.ndim == 3):
        return Embeddings(values, keys, file, null=null)
    if keys is None:
        raise UsageError(f"{where} has a column {VIEW!r}, but no keys: add a column of them")
    order = _views_of_keys(keys, table.column(VIEW), where)
    return Embeddings(values, taken(keys, order[:, 0]), file, order, null)


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
