"""Images in parquet files, read in place: a row group at a time, nothing is copied."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from itertools import accumulate
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from egapipe.pipeline.config.data import ParquetSource
from egapipe.pipeline.datasets.base import UNLABELLED, Images, Labels
from egapipe.pipeline.datasets.classes import Classes
from egapipe.pipeline.datasets.files.rowpaths import RowPaths
from egapipe.pipeline.datasets.kinds import columns
from egapipe.pipeline.datasets.kinds.groups import Groups
from egapipe.pipeline.datasets.kinds.loading import (
    File,
    explained,
    parquet_files,
    split_keys,
    split_name,
)
from egapipe.pipeline.datasets.rows import RowImages, Rows, RowsDataset, reopened
from egapipe.pipeline.errors import UsageError, one_line
from egapipe.pipeline.keys import Keys
from egapipe.pipeline.locations.remote import at_once


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
            features = _features(files[0].footer.schema.to_arrow_schema())
            keys, self._places = _split(source.split, sum(f.footer.num_rows for f in files))
        if not keys:
            raise UsageError(f"{where}: corresponds to no data")
        self._image = columns.image_column(features, source.image_column)
        label = columns.label_column(features, source.label_column)
        key = columns.key_column(features, source.key_column)
        with explained(where):
            wanted = [name for name in (label, key) if name is not None]
            table = read_columns(files, [*wanted, self._image], wanted).take(self._places.array())
        name = f"parquet/{source.split}"
        if key is not None:
            keys = columns.keys(table.column(key), key)
        columns.check_unique(keys, f"data set {name}")
        classes = Classes(np.full(len(keys), UNLABELLED, dtype=np.int64), None)
        if label is not None:
            known = columns.class_names(features[label]) or source.class_names
            classes = columns.classes(table.column(label), label, known)
        super().__init__(source, Rows(name, keys, *classes))
        self._groups = Groups(files, self._image)
        self._files = RowPaths.of(source)
        self._files.check(self._outside, f"data set {self.name}")

    def for_workers(self, keys: Sequence[str]) -> Images:
        """A worker is told where the row groups start, and reads those of its rows."""
        source = self.source
        assert isinstance(source, ParquetSource)  # noqa: S101  (its own)
        return ParquetImages(self.name, keys, self._chosen, source, self._groups, self._places)

    def files(self) -> Sequence[str]:
        """The parquet files, and the image files that rows without bytes point to."""
        return [*self._paths, *(self._files.absolute(path) for path in self._outside)]

    @cached_property
    def _outside(self) -> list[str]:
        """The paths of rows without bytes."""
        return list(self._groups.paths_without_bytes())

    def _read(self, row: int) -> bytes:
        return self._files.content(*self._groups.read(self._places[row]))


class ParquetImages(RowImages):
    """The images of parquet files, without their labels and footers: no column but theirs is read.

    ranges: the rows of the files, one after the other, that the split takes.
    """

    def __init__(
        self,
        name: str,
        keys: Sequence[str],
        chosen: Labels | None,
        source: ParquetSource,
        groups: Groups,
        ranges: "Ranges",
    ) -> None:
        super().__init__(name, keys, chosen)
        self._arguments = (name, keys, chosen, source, groups, ranges)
        self._groups, self._ranges = groups, ranges
        self._files = RowPaths.of(source)

    def __reduce__(self) -> tuple[Any, ...]:
        """Links that rows' files are behind are those of the host where they are read."""
        return reopened(ParquetImages, *self._arguments)

    def _read(self, row: int) -> bytes:
        return self._files.content(*self._groups.read(self._ranges[row]))


class Ranges:
    """Numbers of several ranges, one range after the other."""

    def __init__(self, ranges: Sequence[range]) -> None:
        self._ranges = ranges
        self._starts = [0, *accumulate(map(len, ranges))]

    def __getitem__(self, place: int) -> int:
        number = bisect_right(self._starts, place) - 1
        return self._ranges[number][place - self._starts[number]]

    def array(self) -> Labels:
        """All of them, int64."""
        return np.concatenate([np.arange(r.start, r.stop) for r in self._ranges]).astype(np.int64)


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


def _split(split: str, rows: int) -> tuple[Keys, Ranges]:
    """Keys `<split>/<row of all files>` of a split in `datasets` syntax, and the rows."""
    instruction = datasets.ReadInstruction.from_spec(split_spec(split))
    parts = instruction.to_absolute({split_name(split): rows})
    return split_keys(parts), Ranges([range(part.from_, part.to) for part in parts])


def split_spec(split: str) -> str:
    """`all` is the one split that there is."""
    return split_name(split) if split == "all" else split


def read_columns(files: Sequence[File], needed: Sequence[str], wanted: Sequence[str]) -> pa.Table:
    """Some columns of all files, one after the other. Raises ValueError, Arrow's errors, OSError.

    needed: columns that every file must have.
    """
    tables = at_once(partial(_columns, needed=needed, wanted=wanted), files)
    return pa.concat_tables(tables, promote_options="permissive")


def _columns(file: File, needed: Sequence[str], wanted: Sequence[str]) -> pa.Table:
    names = file.footer.schema.to_arrow_schema().names
    missing = [name for name in needed if name not in names]
    if missing:
        raise ValueError(f"{file.path} has no column {missing[0]!r}: {', '.join(names)}")
    try:
        with file.open() as opened:
            table = opened.read(list(wanted), use_threads=False)
    except pa.ArrowException as error:
        raise ValueError(f"{file.path} is damaged: {one_line(error)}") from None
    # Of no columns a table would have no rows either.
    table = table.append_column("", pa.nulls(file.footer.num_rows))
    return _without_dictionaries(table)


def _without_dictionaries(table: pa.Table) -> pa.Table:
    """Files have dictionaries of their own."""
    for index, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            column = pc.cast(table.column(index), field.type.value_type)
            table = table.set_column(index, field.name, column)
    return table
