"""Images in a table: a data set of the hub, as `datasets` keeps it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from egapipe.pipeline.config.data import HubSource
from egapipe.pipeline.datasets.base import UNLABELLED, Images, Labels
from egapipe.pipeline.datasets.files.rowpaths import RowPaths
from egapipe.pipeline.datasets.kinds import columns
from egapipe.pipeline.datasets.kinds.loading import arrow_files, load_hub, row_keys
from egapipe.pipeline.datasets.rows import RowImages, Rows, RowsDataset, reopened
from egapipe.pipeline.errors import UsageError


class TableDataset(RowsDataset):
    """Rows of an Arrow table that `datasets` keeps as memory-mapped files in its cache.

    An image is the row's bytes or, without them, the file at its path. Threads may read at once:
    an Arrow table never changes.
    """

    def __init__(self, source: HubSource) -> None:
        table, source = load_hub(source)
        super().__init__(source, _rows(f"{_hub_name(source)}/{source.split}", table, source))
        self._cache = arrow_files(table)
        self._images = _Column(table, source)
        self._images.files.check(self._outside(), f"data set {self.name}")

    def for_workers(self, keys: Sequence[str]) -> Images:
        """A worker opens the table, whose files `datasets` has on each host, and its images."""
        source = self.source
        assert isinstance(source, HubSource)  # noqa: S101  (its own)
        return TableImages(self.name, keys, self._chosen, source, self.source_rows)

    def files(self) -> Sequence[str | Path]:
        """The table's files, and the image files its rows point to."""
        own = [self._images.files.absolute(path) for path in self._outside()]
        return [*self._cache, *own] if self._cache else []

    def _outside(self) -> list[str]:
        """The paths of rows without bytes."""
        paths = self._images.paths.filter(self._images.bytes.is_null()).drop_null()
        return columns.texts(paths, f"data set {self.name}: a row's path")

    def _read(self, row: int) -> bytes:
        return self._images.read(row)


class TableImages(RowImages):
    """The images of a hub table, without keys and labels."""

    def __init__(
        self,
        name: str,
        keys: Sequence[str],
        chosen: Labels | None,
        source: HubSource,
        rows: int,
    ) -> None:
        """source: with its commit. rows: of the whole table. Raises UsageError."""
        super().__init__(name, keys, chosen)
        self._arguments = (name, keys, chosen, source, rows)
        table, _ = load_hub(source)
        if len(table) != rows:
            raise UsageError(
                f"data set {source.name} has {len(table)} rows here, {rows} where the extraction "
                "was started: give every host the same data set"
            )
        self._images = _Column(table, source)

    def __reduce__(self) -> tuple[Any, ...]:
        return reopened(TableImages, *self._arguments)

    def _read(self, row: int) -> bytes:
        return self._images.read(row)


class _Column:
    """The image column of a table."""

    def __init__(self, table: datasets.Dataset, source: HubSource) -> None:
        image = columns.image_column(table.features, source.image_column)
        self.bytes, self.paths = _image_fields(_arrow(table).column(image))
        self.files = RowPaths.of(source)

    def read(self, row: int) -> bytes:
        """The bytes of a row's image. Raises ImageError, MachineError."""
        return self.files.content(self.bytes[row].as_py(), self.paths[row].as_py())


def _hub_name(source: HubSource) -> str:
    """The repository, or the last part of a local folder: a name that is the same everywhere."""
    name = Path(source.name).name if Path(source.name).is_absolute() else source.name
    return name if source.config is None else f"{name}/{source.config}"


def _arrow(table: datasets.Dataset) -> pa.Table:
    """The whole table without copying it, its images not decoded."""
    return table.with_format("arrow")[:]


def _rows(name: str, table: datasets.Dataset, source: HubSource) -> Rows:
    features = table.features
    label = columns.label_column(features, source.label_column)
    key = columns.key_column(features, source.key_column)
    arrow = _arrow(table)
    keys = row_keys(table, source.split) if key is None else columns.keys(arrow.column(key), key)
    columns.check_unique(keys, f"data set {name}")
    if label is None:
        return Rows(name, keys, np.full(len(keys), UNLABELLED, dtype=np.int64), None)
    known = columns.class_names(features[label]) or source.class_names
    return Rows(name, keys, *columns.classes(arrow.column(label), label, known))


def _image_fields(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Bytes and paths of the rows, views of the memory-mapped struct column."""
    data = pc.struct_field(column, "bytes")
    if column.type.get_field_index("path") < 0:
        return data, pa.chunked_array([pa.nulls(len(column), pa.string())])
    return data, pc.struct_field(column, "path")
