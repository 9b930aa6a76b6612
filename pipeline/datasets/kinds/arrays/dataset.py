"""A data set of arrays: its samples are numbers, and its views are ready-made variants of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from egapipe.pipeline.config.sources import ArraysSource
from egapipe.pipeline.datasets.base import UNLABELLED, Labels
from egapipe.pipeline.datasets.classes import Classes, of_numbers
from egapipe.pipeline.datasets.kinds.arrays.npy import NpyFiles, npy_numbers
from egapipe.pipeline.datasets.kinds.arrays.stored import Arrays, Stored, arrays_of, samples
from egapipe.pipeline.datasets.kinds.columns import check_unique
from egapipe.pipeline.datasets.rows import Rows, RowsDataset
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.keys import Keys, NumberedKeys
from egapipe.pipeline.locations.urls import absolute_url

_DIGITS = 8


class ArraysDataset(RowsDataset):
    """Rows of .npy or parquet files. The stored bytes of a row are its numbers as they lie there,
    those of all variants."""

    arrays: Arrays

    def __init__(self, source: ArraysSource) -> None:
        """Raises UsageError: no such file or column, files that differ, labels for other rows."""
        stored, keys, classes = _opened(source)
        source = source.model_copy(update={"files": stored.files, "labels": _place(source)})
        name = f"arrays/{source.split}"
        if len(keys) != stored.rows or len(classes.labels) != stored.rows:
            raise UsageError(
                f"data set {name} has {stored.rows:,} rows and {len(classes.labels):,} labels"
            )
        check_unique(keys, f"data set {name}")
        super().__init__(source, Rows(name, keys, *classes))
        self._stored = stored
        self.arrays = arrays_of(stored, f"data set {name}", variants=source.variants)

    def files(self) -> Sequence[str]:
        """Those of the arrays, and that of the labels."""
        source = self.source
        assert isinstance(source, ArraysSource)  # noqa: S101  (its own)
        return [*self._stored.files, *([] if source.labels is None else [source.labels])]

    def array(self, row: int) -> npt.NDArray[Any]:
        """See `Images`."""
        return samples(self.encoded(row), self._stored, self.arrays)

    def _read(self, row: int) -> bytes:
        return self._stored.read(row)


def _opened(source: ArraysSource) -> tuple[Stored, Keys, Classes]:
    """The arrays, and keys and labels of all rows."""
    if source.in_parquet:
        # Arrow and `datasets` take a second.
        from egapipe.pipeline.datasets.kinds.arrays.parquet import ArrayColumn

        column = ArrayColumn(source)
        classes = _none(column.rows)
        if source.label_column is not None:
            classes = column.classes(source.label_column, source.class_names)
        if source.key_column is not None:
            return column, column.keys(source.key_column), classes
        return column, _numbered(source, column.rows), classes
    files = NpyFiles(source.files)
    classes = _none(files.rows) if source.labels is None else _labels(source)
    return files, _numbered(source, files.rows), classes


def _numbered(source: ArraysSource, rows: int) -> NumberedKeys:
    return NumberedKeys([(f"{source.split}/", range(rows))], _DIGITS)


def _labels(source: ArraysSource) -> Classes:
    assert source.labels is not None  # noqa: S101  (asked for)
    numbers = npy_numbers(source.labels)
    if numbers.min(initial=UNLABELLED) < UNLABELLED:
        raise UsageError(f"{source.labels} holds {numbers.min()}: -1 is a row without a label")
    known = source.class_names
    return of_numbers(numbers) if known is None else Classes(numbers, known)


def _none(rows: int) -> Classes:
    labels: Labels = np.full(rows, UNLABELLED, dtype=np.int64)
    return Classes(labels, None)


def _place(source: ArraysSource) -> str | None:
    return None if source.labels is None else absolute_url(source.labels)
