"""Arrays in a column of parquet files, read in place, a row group at a time."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from egapipe.pipeline.config.sources import ArraysSource
from egapipe.pipeline.datasets.classes import Classes
from egapipe.pipeline.datasets.kinds import columns
from egapipe.pipeline.datasets.kinds.groups import Groups
from egapipe.pipeline.datasets.kinds.loading import explained, parquet_files
from egapipe.pipeline.datasets.kinds.parquet import read_columns
from egapipe.pipeline.errors import ImageError, UsageError
from egapipe.pipeline.keys import TextKeys

AnyArray = npt.NDArray[Any]


class ArrayColumn:
    """The rows of a column of lists, of lists of lists and so on, or of tensors of one shape."""

    def __init__(self, source: ArraysSource) -> None:
        """Raises UsageError: no such file or column, or no row with an array."""
        files = parquet_files(source)
        self._listed, self._where = files, f"parquet files {source.files[0]}"
        self.files = [file.path for file in files]
        with explained(self._where):
            schema = files[0].footer.schema.to_arrow_schema()
        self._column = _column(schema, source.column)
        self._names = schema.names
        self._groups = Groups(files, self._column)
        self.rows = sum(file.footer.num_rows for file in files)
        self.dtype = _number_type(schema.field(self._column).type, self._column)
        self.shape = self._first_shape()

    def read(self, row: int) -> bytes:
        """See `Stored`."""
        found = self._array(row)
        if found.shape != self.shape:
            raise ImageError(f"its shape is {list(found.shape)}, others have {list(self.shape)}")
        return np.ascontiguousarray(found, self.dtype).tobytes()

    def keys(self, name: str) -> TextKeys:
        """The column of keys. Raises UsageError."""
        return columns.keys(self._read(name, "key_column"), name)

    def classes(self, name: str, known: list[str] | None) -> Classes:
        """The column of labels. Raises UsageError."""
        return columns.classes(self._read(name, "label_column"), name, known)

    def _read(self, name: str, field: str) -> pa.ChunkedArray:
        if name not in self._names:
            listed = ", ".join(self._names)
            raise UsageError(f"{field} {name!r} is not a column; columns: {listed}")
        with explained(self._where):
            return read_columns(self._listed, [name], [name]).column(name)

    def _array(self, row: int) -> AnyArray:
        """Raises ImageError for a null, or lists of several lengths."""
        value = self._groups.value(row)
        if not value.is_valid:
            raise ImageError("it is missing")
        if isinstance(value, pa.ExtensionScalar):
            tensor: AnyArray = value.to_numpy()
            return tensor
        return _nested(value.values)

    def _first_shape(self) -> tuple[int, ...]:
        reason = ""
        for row in range(self.rows):
            try:
                return self._array(row).shape
            except ImageError as error:
                reason = reason or str(error)
        raise UsageError(f"{self._where}: no row of {self._column} is an array: {reason}")


def _column(schema: pa.Schema, asked: str | None) -> str:
    found: list[str] = [field.name for field in schema if _is_array(field.type)]
    listed = ", ".join(f"{field.name} ({field.type})" for field in schema)
    if asked is not None:
        if asked not in found:
            raise UsageError(f"column {asked!r} is no column of arrays; columns: {listed}")
        return asked
    if len(found) != 1:
        what = f"several columns of arrays ({', '.join(found)})" if found else "no column of arrays"
        raise UsageError(f"{what}: set column; columns: {listed}")
    return found[0]


def _is_array(kind: pa.DataType) -> bool:
    return isinstance(kind, pa.FixedShapeTensorType) or _is_list(kind)


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _number_type(kind: pa.DataType, column: str) -> np.dtype[Any]:
    """Of the numbers in lists, little-endian."""
    inner = kind
    while _is_list(inner) or isinstance(inner, pa.FixedShapeTensorType):
        inner = inner.value_type
    if not (
        pa.types.is_boolean(inner) or pa.types.is_integer(inner) or pa.types.is_floating(inner)
    ):
        raise UsageError(f"column {column!r} holds {kind}, arrays are of numbers")
    numbers: np.dtype[Any] = np.dtype(inner.to_pandas_dtype())
    return numbers.newbyteorder("<")


def _nested(values: pa.Array) -> AnyArray:
    """The array that lists of lists are. Raises ImageError if they are none."""
    shape = [len(values)]
    while _is_list(values.type):
        lengths = pc.unique(pc.list_value_length(values)).to_pylist()
        if len(lengths) != 1 or lengths[0] is None:
            raise ImageError("its lists have several lengths, or none")
        shape.append(lengths[0])
        values = values.flatten()
    if values.null_count:
        raise ImageError(f"{values.null_count} of its numbers are missing")
    array: AnyArray = values.to_numpy(zero_copy_only=False).reshape(shape)
    return array
