"""A store on a local disk, or on any file system that is mounted."""

import errno
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

from egapipe.pipeline.disk.files import new_file, open_regular, whole_file
from egapipe.pipeline.store.objects.base import Objects

_PIECE = 4 << 20
_NO_FLUSH = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}
# As in an object store: where others lie below a key, it may have no object itself.
_NO_OBJECT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class LocalObjects(Objects):
    """A folder."""

    def get(self, key: str) -> bytes | None:
        """The bytes of a file, or None if there is none."""
        with self.explained("read", key):
            try:
                with open_regular(self._path(key)) as file:
                    return file.read()
            except _NO_OBJECT:
                return None

    def part(self, key: str, start: int, stop: int) -> bytes | None:
        """A part of a file."""
        with self.explained("read", key):
            try:
                with open_regular(self._path(key)) as file:
                    file.seek(start)
                    return file.read(stop - start)
            except _NO_OBJECT:
                return None

    def put(self, key: str, data: bytes) -> None:
        """Write a file beside its place, flush it to disk and rename it there."""
        path = self._path(key)
        with self.explained("write", key):
            _make_folder(path.parent)
            with whole_file(path) as file:
                file.write(data)
            self._flush_folders(path)

    def create(self, key: str, data: bytes) -> bool:
        """Write a file beside its place, flush it to disk and link it there, which fails if there
        is one; on file systems without links, open it exclusively."""
        return self._create(key, lambda: (data,))

    def create_from(self, key: str, file: BinaryIO) -> bool:
        """As `create`, a few megabytes at a time."""

        def pieces() -> Iterator[bytes]:
            file.seek(0)
            yield from iter(partial(file.read, _PIECE), b"")

        return self._create(key, pieces)

    def _create(self, key: str, pieces: Callable[[], Iterable[bytes]]) -> bool:
        path = self._path(key)
        with self.explained("write", key):
            _make_folder(path.parent)
            try:
                new_file(path, pieces)
            except FileExistsError:
                return False
            self._flush_folders(path)
        return True

    def delete(self, key: str) -> None:
        """Remove a file."""
        with self.explained("delete", key):
            self._path(key).unlink(missing_ok=True)

    def age(self, key: str) -> float:
        """By this machine's clock."""
        with self.explained("read", key):
            try:
                return time.time() - self._path(key).stat().st_mtime
            except FileNotFoundError:
                return math.inf

    def names(self) -> list[str]:
        """Entries of the folder; none if there is no folder."""
        with self.explained("list", ""):
            try:
                return sorted(os.listdir(self.url))
            except FileNotFoundError:
                return []

    def folders(self) -> list[str]:
        """Folders in the folder, and what may be one; none if there is no folder."""
        with self.explained("list", ""):
            try:
                with os.scandir(self.url) as entries:
                    return sorted(entry.name for entry in entries if _may_be_folder(entry))
            except (FileNotFoundError, NotADirectoryError):
                return []

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Every file below the folder, by its path relative to it."""
        root = Path(self.url)
        found = {}
        with self.explained("list", prefix):
            for path in _files(root / prefix):
                # Meanwhile another writer may have renamed its temporary file.
                with suppress(FileNotFoundError):
                    found[path.relative_to(root).as_posix()] = path.lstat().st_size
        return dict(sorted(found.items()))

    def _path(self, key: str) -> Path:
        return Path(self.url, key)

    def _flush_folders(self, path: Path) -> None:
        """A new file survives a power failure once the folders that name it are flushed too."""
        for folder in path.parents:
            _fsync_folder(folder)
            if folder == Path(self.url):
                break


def _may_be_folder(entry: os.DirEntry[str]) -> bool:
    """A link that leads nowhere to be seen may: whoever looks into it is told why not."""
    try:
        return entry.is_dir()
    except OSError:
        return True


def _files(folder: Path) -> Iterator[Path]:
    """Every file below a folder; none if there is no folder."""

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    for here, _, names in os.walk(folder, onerror=refuse):
        yield from (Path(here, name) for name in names)


def _make_folder(folder: Path) -> None:
    """Make a folder and those it lies in, each flushed in the one that names it."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _fsync_folder(folder.parent)


def _fsync_folder(folder: Path) -> None:
    try:
        _fsync(folder)
    except OSError as error:
        # Some network file systems flush files only.
        if error.errno not in _NO_FLUSH:
            raise


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
