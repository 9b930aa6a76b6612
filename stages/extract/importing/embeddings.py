"""Embeddings that were made elsewhere: where they may lie."""

import re
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from egapipe.pipeline.arrays import mapped_npy
from egapipe.pipeline.config.data import HubSource
from egapipe.pipeline.datasets.loading import load_hub
from egapipe.pipeline.errors import UsageError, one_line
from egapipe.pipeline.urls import path_of
from egapipe.stages.extract.importing.tables import Columns, Embeddings, Floats, from_table

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
        return from_table(_parquet(file, columns), str(file), columns, file)
    if not file.exists() and file.suffix not in (".npy", ".parquet") and _HUB.fullmatch(path):
        return from_table(*_hub(path, split), columns)
    what = "is no such file" if file.exists() else "is not there"
    raise UsageError(
        f"{path} {what}: give embeddings as a .npy or .parquet file, as a folder of a Hugging Face "
        "data set, or as its name on the hub (owner/name)"
    )


def _array(file: Path) -> Floats:
    values: Floats = mapped_npy(file)
    if values.ndim not in (2, 3) or values.dtype.kind != "f":
        raise UsageError(
            f"{file} holds {values.dtype} {list(values.shape)}: "
            "embeddings are floats [rows, D] or [rows, views, D]"
        )
    return values


def _parquet(file: Path, columns: Columns) -> pa.Table:
    try:
        # All of them where the asked ones are not there: the refusal names them.
        names = columns.among(pq.read_schema(file).names)
        return pq.read_table(file, columns=names)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UsageError(f"{file} cannot be read as parquet: {one_line(error)}") from None


def _folder(folder: Path, split: str) -> tuple[pa.Table, str]:
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
    return _arrow(table), str(folder)


def _hub(name: str, split: str) -> tuple[pa.Table, str]:
    table, _ = load_hub(HubSource(kind="hub", name=name, split=split))
    return _arrow(table), name


def _arrow(table: datasets.Dataset) -> pa.Table:
    """The rows in their order, whatever was selected or shuffled."""
    arrow: pa.Table = table.with_format("arrow")[:]
    return arrow
