"""A folder of image files; its sub-folders are the classes."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from egapipe.pipeline.config.data import FolderSource
from egapipe.pipeline.datasets.base import UNLABELLED, Images
from egapipe.pipeline.datasets.decoding.images import SUFFIXES
from egapipe.pipeline.datasets.decoding.reading import attempt, read_bytes
from egapipe.pipeline.datasets.rows import RowImages, Rows, RowsDataset, reopened
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.keys import TextKeys
from egapipe.pipeline.locations.remote import is_remote, listed
from egapipe.pipeline.locations.urls import absolute_url

# Of skipped files, as many endings are named.
_ENDINGS = 5


class FolderDataset(RowsDataset):
    """Image files below a folder, in the order of their keys.

    Keys are POSIX paths relative to the folder. Its sub-folders, sorted by name, are the classes
    (one without images keeps its number); an image directly in it has no label. Files are taken by
    their ending; hidden files and folders are left out, links are followed.
    """

    def __init__(self, source: FolderSource, rows: Rows | None = None) -> None:
        """`rows` is the listing of another process: both then number the same files."""
        path = absolute_url(source.path)
        source = source.model_copy(update={"path": path})
        self._rows = rows or _listing(path)
        super().__init__(source, self._rows)
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        """Paths travel too: a walk of a million files is slow, and might now find others."""
        return reopened(type(self), self.source, self._rows)

    def for_workers(self, keys: Sequence[str]) -> Images:
        """A key is all that it takes to read an image."""
        return FolderImages(self._path, self.name, keys)

    def files(self) -> Sequence[str]:
        """Every image file."""
        return [f"{self._path}/{key}" for key in self.keys]

    def _read(self, row: int) -> bytes:
        return read_bytes(f"{self._path}/{self._rows.keys[row]}")


class FolderImages(RowImages):
    """The images of a folder, without their listing."""

    def __init__(self, path: str, name: str, keys: Sequence[str]) -> None:
        super().__init__(name, keys)
        self._path = path

    def _read(self, row: int) -> bytes:
        return read_bytes(f"{self._path}/{self.keys[row]}")


def _listing(place: str) -> Rows:
    skipped: Counter[str] = Counter()
    keys, classes = (_remote if is_remote(place) else _local)(place, skipped)
    numbers = {name: label for label, name in enumerate(classes)}
    labels = [numbers.get(key.partition("/")[0], UNLABELLED) for key in keys]
    name = f"folder/{PurePosixPath(place).name}"
    said = _said(name, skipped)
    return Rows(name, keys, np.array(labels, dtype=np.int64), classes or None, notes=said)


def _remote(url: str, skipped: Counter[str]) -> tuple[TextKeys, list[str]]:
    """Keys and classes of a folder elsewhere: a class is there by what lies below it."""
    try:
        found = attempt(lambda: listed(url))
    except FileNotFoundError:
        raise UsageError(
            f"dataset path {url} is not there: give the folder of the images"
        ) from None
    files = [name for name in found if not any(p.startswith(".") for p in name.split("/"))]
    keys = []
    for name in files:
        if name.lower().endswith(SUFFIXES):
            keys.append(name)
        elif not name.endswith("/"):
            skipped[os.path.splitext(name)[1].lower() or "without an ending"] += 1
    return TextKeys.sorted(keys), sorted({name.partition("/")[0] for name in files if "/" in name})


def _local(place: str, skipped: Counter[str]) -> tuple[TextKeys, list[str]]:
    """Keys and classes of a folder of this machine."""
    folder = Path(place)
    if not folder.is_dir():
        raise UsageError(f"dataset path {folder} is not a folder: give the folder of the images")
    try:
        keys = TextKeys.sorted(_walk(folder, "", (), skipped))
        with os.scandir(folder) as entries:
            classes = sorted(e.name for e in entries if e.is_dir() and not _hidden(e))
    except OSError as error:
        raise UsageError(f"folder {error.filename} cannot be read: {error.strerror}") from None
    return keys, classes


def _said(name: str, skipped: Counter[str]) -> list[str]:
    """How many files are no rows, by ending."""
    if not skipped:
        return []
    common = sorted(skipped.items(), key=lambda item: (-item[1], item[0]))[:_ENDINGS]
    kinds = [f"{count:,} {ending}" for ending, count in common]
    more = ", ..." if len(skipped) > _ENDINGS else ""
    return [
        f"{name}: {skipped.total():,} files are skipped ({', '.join(kinds)}{more}): images end in "
        + " ".join(SUFFIXES)
    ]


def _walk(
    folder: Path, prefix: str, above: tuple[tuple[int, int], ...], skipped: Counter[str]
) -> Iterator[str]:
    """Keys of the images below a folder, unsorted. A link to a folder above is not entered."""
    stat = folder.stat()
    here = (stat.st_dev, stat.st_ino)
    if here in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if _hidden(entry):
                continue
            if entry.is_dir():
                inner = f"{prefix}{_utf8(entry)}/"
                yield from _walk(Path(entry.path), inner, (*above, here), skipped)
            elif _is_image(entry):
                yield prefix + _utf8(entry)
            else:
                skipped[os.path.splitext(entry.name)[1].lower() or "without an ending"] += 1


def _hidden(entry: os.DirEntry[str]) -> bool:
    return entry.name.startswith(".")


def _is_image(entry: os.DirEntry[str]) -> bool:
    """By its ending. A broken link is one: it is then reported as unreadable instead of missed."""
    return entry.name.lower().endswith(SUFFIXES) and (
        entry.is_file() or not os.path.exists(entry.path)
    )


def _utf8(entry: os.DirEntry[str]) -> str:
    """The name, which keys and labels need as text."""
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        raise UsageError(f"the file name {entry.path!r} is not UTF-8: rename it") from None
    return entry.name
