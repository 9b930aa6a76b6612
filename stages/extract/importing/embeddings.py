"""Embeddings that were made elsewhere: where they may lie."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from egapipe.pipeline.config.data import HubSource
from egapipe.pipeline.datasets.kinds.loading import load_hub
from egapipe.pipeline.disk.arrays import mapped_npy
from egapipe.pipeline.errors import EgapipeError, UsageError, one_line
from egapipe.pipeline.locations.urls import path_of
from egapipe.stages.extract.importing.spool import BATCH_ROWS, Floats
from egapipe.stages.extract.importing.tables import Columns, Embeddings, from_table

_HUB = re.compile(r"[\w.-]+/[\w.-]+")
# What `datasets.save_to_disk` writes into the folder of one data set, and of several splits.
_ONE, _SPLITS = "state.json", "dataset_dict.json"


def read_embeddings(
    path: str, columns: Columns | None = None, *, split: str = "train"
) -> Embeddings:
    """Embeddings of a `.npy` or `.parquet` file, or of a Hugging Face data set.

    path: of a file; of a folder that `save_to_disk` wrote, or in the layout of a hub repository; or
    a name on the hub, `owner/name`. columns: of a table, see `from_table`. split: of a data set
    that has several. Raises UsageError: nothing there, another format, or another shape.
    """
    columns = columns or Columns()
    file = path_of(path)
    if file.is_dir():
        return from_table(*_folder(file, split), columns)
    if file.suffix == ".npy" and file.is_file():
        return Embeddings(_array(file), None, file)
    if file.suffix == ".parquet" and file.is_file():
        with _explained(file):
            return from_table(_ParquetTable(file), str(file), columns, file)
    if not file.exists() and file.suffix not in (".npy", ".parquet") and _HUB.fullmatch(path):
        return from_table(*_hub(path, split), columns)
    what = "is no such file" if file.exists() else "is not there"
    raise UsageError(
        f"{path} {what}: give embeddings as a .npy or .parquet file, as a folder of a Hugging Face "
        "data set, or as its name on the hub (owner/name)"
    )


def _array(file: Path) -> Floats:
    values: Floats = mapped_npy(file)
    if values.ndim < 2 or values.dtype.kind != "f":
        raise UsageError(
            f"{file} holds {values.dtype} {list(values.shape)}: "
            "embeddings are floats [rows, D] or [rows, views, D]"
        )
    return values


@contextmanager
def _explained(file: Path) -> Iterator[None]:
    try:
        yield
    except EgapipeError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UsageError(f"{file} cannot be read as parquet: {one_line(error)}") from None


class _ParquetTable:
    """A parquet file, see `Table`."""

    def __init__(self, file: Path) -> None:
        self._file = pq.ParquetFile(file)
        self.names: Sequence[str] = self._file.schema_arrow.names

    def column(self, name: str) -> pa.ChunkedArray:
        """See `Table`."""
        return self._file.read([name])[name]

    def batches(self, name: str) -> Iterator[pa.Array]:
        """See `Table`."""
        for batch in self._file.iter_batches(BATCH_ROWS, columns=[name]):
            yield batch.column(0)


class _SetTable:
    """A table that `datasets` maps, see `Table`: its rows in their order, whatever was selected or
    shuffled."""

    def __init__(self, table: datasets.Dataset) -> None:
        self._table = table
        self.names: Sequence[str] = table.column_names

    def column(self, name: str) -> pa.ChunkedArray:
        """See `Table`."""
        return self._table.select_columns([name]).with_format("arrow")[:][name]

    def batches(self, name: str) -> Iterator[pa.Array]:
        """See `Table`."""
        for part in self._table.select_columns([name]).with_format("arrow").iter(BATCH_ROWS):
            yield from part[name].chunks


def _folder(folder: Path, split: str) -> tuple[_SetTable, str]:
    """The table of a folder, and what to call it."""
    if not any((folder / name).is_file() for name in (_ONE, _SPLITS)):
        return _hub(str(folder), split)
    try:
        table = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UsageError(f"data set {folder} cannot be read: {one_line(error)}") from None
    if isinstance(table, datasets.DatasetDict):
        if split not in table:
            raise UsageError(
                f"data set {folder} has no split {split!r}: it has {', '.join(table)}, choose with "
                "--from-split"
            )
        table = table[split]
    return _SetTable(table), str(folder)


def _hub(name: str, split: str) -> tuple[_SetTable, str]:
    table, _ = load_hub(HubSource(kind="hub", name=name, split=split))
    return _SetTable(table), name
