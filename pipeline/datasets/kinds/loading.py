"""Opening a table with Hugging Face `datasets`, its errors turned into one line."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import pyarrow.parquet as pq
from datasets.exceptions import DatasetNotFoundError

from egapipe.pipeline.config.data import ArraysSource, HubSource, ParquetSource
from egapipe.pipeline.datasets.files.datafile import RemoteFile
from egapipe.pipeline.datasets.files.patterns import matches
from egapipe.pipeline.errors import EgapipeError, MachineError, UsageError, one_line
from egapipe.pipeline.keys import NumberedKeys
from egapipe.pipeline.locations.places import is_place
from egapipe.pipeline.locations.remote import at_once, is_remote
from egapipe.pipeline.locations.urls import path_of

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SPLIT_NAME = re.compile(r"\w+(?:\.\w+)*")


class File(NamedTuple):
    """A parquet file. path: or URL. metadata: its footer, None in a process that was told where its
    row groups start. version: of a file elsewhere."""

    path: str
    metadata: pq.FileMetaData | None
    version: str

    @property
    def footer(self) -> pq.FileMetaData:
        """The footer, of a file that this process has listed."""
        assert self.metadata is not None  # noqa: S101  (see `parquet_files`)
        return self.metadata

    @property
    def rows_of_groups(self) -> list[int]:
        """Rows of each row group."""
        footer = self.footer
        return [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]

    def without_footer(self) -> "File":
        """For another process: the footers of many files are many megabytes."""
        return self._replace(metadata=None)

    def open(self) -> pq.ParquetFile:
        """The file; its footer is read unless it is known. Raises OSError and Arrow's errors;
        MachineError: a storage that cannot be used, or another file than the footer's."""
        if not is_remote(self.path):
            return pq.ParquetFile(self.path, metadata=self.metadata)
        file = RemoteFile(self.path)
        if file.state.version != self.version:
            raise MachineError(f"{self.path} was replaced since it was opened")
        return pq.ParquetFile(file, metadata=self.metadata)


def load_hub(source: HubSource) -> tuple[datasets.Dataset, HubSource]:
    """The table of a hub data set, and the source with its commit as the revision.

    `name` may also be a local folder in the layout of a hub repository. Raises UsageError.
    """
    source = _local(source)
    where = f"data set {source.name}, split {source.split!r}"
    with explained(where):
        table = _load(source)
        if _is_stale(table, Path(source.name)):
            table = _load(source, download_mode="force_redownload")
    commit = _commit(table)
    if commit is None:
        return table, source
    asked = source.revision
    if asked is not None and _COMMIT.fullmatch(asked) and asked != commit:
        # Without a network `datasets` takes whatever commit lies in its cache.
        raise UsageError(
            f"{where}: this machine has only commit {commit} in its cache, not {asked}:"
            " connect to the hub, or set `revision` to the first"
        )
    return table, source.model_copy(update={"revision": commit})


def parquet_files(source: ParquetSource | ArraysSource) -> list[File]:
    """The files of a source that have rows, absolute, with their footers. Raises UsageError."""
    found = [file for pattern in source.files for file in _matches(pattern)]
    files = [file for file in at_once(_with_footer, found) if file.footer.num_rows]
    if not files:
        raise UsageError(f"parquet files {source.files[0]} have no rows")
    return files


def _load(source: HubSource, **options: Any) -> datasets.Dataset:
    return datasets.load_dataset(
        source.name, source.config, split=source.split, revision=source.revision, **options
    )


def _is_stale(table: datasets.Dataset, folder: Path) -> bool:
    """Whether a local folder has changed since its cached copy was made, whatever its files' dates.

    `datasets` goes by size and date, which `cp -a` of another file leaves as they were.
    """
    copies = arrow_files(table)
    if not copies or not folder.is_dir():
        return False
    made = min(copy.stat().st_mtime_ns for copy in copies)
    return any(file.stat().st_ctime_ns > made for file in folder.rglob("*") if file.is_file())


def row_keys(table: datasets.Dataset, split: str) -> NumberedKeys:
    """`<split>/<row of that split, 8 digits>`: row 0 of `train[100:]` is `train/00000100`.

    So an image keeps its key, and with it its views, in whichever slice it is used.
    """
    sizes = {name: info.num_examples for name, info in table.info.splits.items()}
    spec = "+".join(sizes) if split == "all" else split
    parts = datasets.ReadInstruction.from_spec(spec).to_absolute(sizes)
    return split_keys(parts)


def split_keys(parts: Iterable[Any]) -> NumberedKeys:
    """`<split>/<row, 8 digits>` for the rows `from_` to `to` - 1 of each part."""
    return NumberedKeys([(f"{p.splitname}/", range(p.from_, p.to)) for p in parts], 8)


def arrow_files(table: datasets.Dataset) -> list[Path]:
    """The memory-mapped files that the rows are really read from; none for a table in memory."""
    return sorted({Path(file["filename"]) for file in table.cache_files})


def _local(source: HubSource) -> HubSource:
    if source.name in ("parquet", "imagefolder"):
        # For `datasets` these names mean: search the working directory for such files.
        kind = "parquet" if source.name == "parquet" else "folder"
        raise UsageError(
            f"{source.name!r} is not a hub data set: use `kind: {kind}` for local files"
        )
    folder = path_of(source.name)
    if folder.is_dir():
        return source.model_copy(update={"name": str(folder.absolute())})
    if folder.is_absolute() or is_place(source.name):
        raise UsageError(f"data set folder {source.name} does not exist")
    return source


def _commit(table: datasets.Dataset) -> str | None:
    """The commit that a cached hub table is filed under; local folders have a longer hash."""
    folders = {file.parent.name for file in arrow_files(table)}
    name = folders.pop() if len(folders) == 1 else ""
    return name if _COMMIT.fullmatch(name) else None


def _matches(pattern: str) -> list[str]:
    found = [file for file in matches(pattern) if is_remote(file) or Path(file).is_file()]
    if not found:
        raise UsageError(f"no parquet file matches {pattern!r}: check dataset files")
    return found


def _with_footer(path: str) -> File:
    file = _read_footer(path)
    if sum(file.rows_of_groups) != file.footer.num_rows:
        raise UsageError(f"{path} is not a readable parquet file: its row groups have other rows")
    return file


def _read_footer(path: str) -> File:
    try:
        if not is_remote(path):
            return File(path, pq.read_metadata(path), "")
        file = RemoteFile(path)
        return File(path, pq.read_metadata(file), file.state.version)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is not a readable parquet file: {one_line(error)}") from None


def split_name(split: str) -> str:
    """`train` of `train[:5000]`: local files are one split, of whatever name."""
    names = set(_SPLIT_NAME.findall(re.sub(r"\[[^]]*\]", "", split)))
    if len(names) != 1:
        raise UsageError(f"split {split!r}: parquet files are a single split, e.g. `train[:5000]`")
    name = names.pop()
    return "train" if name == "all" else name


@contextmanager
def explained(where: str) -> Iterator[None]:
    """Run `datasets` or Arrow quietly; whatever they raise becomes one line."""
    try:
        with _quiet():
            yield
    except EgapipeError:
        raise
    except Exception as error:
        # `datasets`, the hub's client, fsspec and Arrow raise dozens of types for a wrong name.
        raise UsageError(f"{where}: {_advice(error)}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars, and no request that counts the use of local files.

    `datasets` sends that request before it opens anything; without a network it costs seconds.
    """
    hidden = datasets.are_progress_bars_disabled()
    counted = datasets.config.HF_UPDATE_DOWNLOAD_COUNTS
    datasets.disable_progress_bars()
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    try:
        yield
    finally:
        datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = counted
        if not hidden:
            datasets.enable_progress_bars()


def _advice(error: Exception) -> str:
    if isinstance(error, DatasetNotFoundError):
        return (
            "not on the hub, or closed to you: check name, config and revision, and log in with"
            f" `hf auth login` if it is gated ({one_line(error)})"
        )
    if isinstance(error, ConnectionError):
        return (
            "the hub cannot be reached and the data set is not in this machine's cache: connect,"
            f" or set `name` to a local folder of its parquet files ({one_line(error)})"
        )
    return one_line(error.__cause__ or error)
