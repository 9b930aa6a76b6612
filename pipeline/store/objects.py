"""Objects: bytes under keys at one URL, on a local disk or in an object store.

A key is a relative path with forward slashes. `put` is atomic in both places: a reader sees the old
object, the new one or none, never a part. Locally that is a temporary file, an fsync and a rename;
an object store's put is atomic by itself, and nothing here asks it to rename.
"""

import errno
import os
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from egapipe.pipeline.errors import StoreError

if TYPE_CHECKING:
    from zarr.abc.store import Store

PARTIAL = ".partial"
_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_REMOTE_READS = 16


class Objects(ABC):
    """The objects of one store. Cheap to make and to pickle: it holds a URL and no connection."""

    unreachable: tuple[type[Exception], ...] = (OSError,)
    """What the place raises when it cannot be reached, read or written."""

    def __init__(self, url: str) -> None:
        self.url = url

    @abstractmethod
    def get(self, key: str) -> bytes | None:
        """The bytes of an object, or None if there is none."""

    @abstractmethod
    def put(self, key: str, data: bytes) -> None:
        """Write a whole object, atomically and durably."""

    @abstractmethod
    def flush(self, key: str) -> None:
        """Make an object that somebody else wrote here survive a power failure."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object; none there is no error."""

    @abstractmethod
    def names(self) -> list[str]:
        """First path components of all keys, sorted."""

    @abstractmethod
    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Key -> bytes of every object below a folder, sorted by key."""

    @abstractmethod
    def zarr(self, *, read_only: bool) -> "Store":
        """The same place for zarr. To be used by the process that asked for it only."""

    def get_many(self, keys: Iterable[str]) -> Iterator[bytes | None]:
        """The objects of several keys, in their order."""
        return map(self.get, keys)

    @contextmanager
    def explained(self, doing: str, key: str) -> Iterator[None]:
        """Turn what the place raises into a StoreError of one line."""
        try:
            yield
        except StoreError:
            raise
        except self.unreachable as error:
            raise unusable(doing, f"{self.url}/{key}".rstrip("/"), error) from error


class LocalObjects(Objects):
    """A folder."""

    def get(self, key: str) -> bytes | None:
        """The bytes of a file, or None if there is none."""
        with self.explained("read", key):
            try:
                return self._path(key).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def put(self, key: str, data: bytes) -> None:
        """Write a file beside its place, flush it to disk and rename it there."""
        path = self._path(key)
        temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL}")
        with self.explained("write", key):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with temporary.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            self._flush_folders(path)

    def flush(self, key: str) -> None:
        """Flush a file and the folders it lies in."""
        path = self._path(key)
        with self.explained("write", key):
            _fsync(path)
            self._flush_folders(path)

    def delete(self, key: str) -> None:
        """Remove a file."""
        with self.explained("delete", key):
            self._path(key).unlink(missing_ok=True)

    def names(self) -> list[str]:
        """Entries of the folder; none if there is no folder."""
        with self.explained("list", ""):
            try:
                return sorted(os.listdir(self.url))
            except FileNotFoundError:
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

    def zarr(self, *, read_only: bool) -> "Store":
        """Zarr's store of a folder."""
        from zarr.storage import LocalStore

        return LocalStore(self.url, read_only=read_only)

    def _path(self, key: str) -> Path:
        return Path(self.url, key)

    def _flush_folders(self, path: Path) -> None:
        """A new file survives a power failure once the folders that name it are flushed too."""
        for folder in path.parents:
            _fsync(folder)
            if folder == Path(self.url):
                break


class RemoteObjects(Objects):
    """A prefix of an object store, or anything else that fsspec opens."""

    # Every remote client has exceptions of its own (botocore's are no OSErrors).
    unreachable = (Exception,)

    def get(self, key: str) -> bytes | None:
        """The bytes of an object, or None if there is none."""
        with self.explained("read", key):
            fs, root = self._open()
            try:
                data: bytes = fs.cat_file(f"{root}/{key}")
            except FileNotFoundError:
                return None
            return data

    def get_many(self, keys: Iterable[str]) -> Iterator[bytes | None]:
        """Many small reads: their latencies overlap."""
        with ThreadPoolExecutor(_REMOTE_READS) as pool:
            yield from pool.map(self.get, keys)

    def put(self, key: str, data: bytes) -> None:
        """One put, atomic and durable by itself."""
        with self.explained("write", key):
            fs, root = self._open()
            fs.pipe_file(f"{root}/{key}", data)

    def flush(self, key: str) -> None:
        """Nothing to do: what a remote store has accepted is durable."""

    def delete(self, key: str) -> None:
        """Remove an object."""
        with self.explained("delete", key):
            fs, root = self._open()
            try:
                fs.rm_file(f"{root}/{key}")
            except FileNotFoundError:
                return

    def names(self) -> list[str]:
        """First components of the keys below the prefix."""
        with self.explained("list", ""):
            fs, root = self._open()
            try:
                found = fs.ls(root, detail=False)
            except FileNotFoundError:
                return []
            return sorted(path.rstrip("/").rpartition("/")[2] for path in found)

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Every object below the prefix."""
        with self.explained("list", prefix):
            fs, root = self._open()
            try:
                found = fs.find(f"{root}/{prefix}".rstrip("/"), detail=True)
            except FileNotFoundError:
                return {}
            start = len(root.strip("/")) + 1
            return {path.lstrip("/")[start:]: int(found[path]["size"]) for path in sorted(found)}

    def zarr(self, *, read_only: bool) -> "Store":
        """Zarr's store of an fsspec URL."""
        from zarr.storage import FsspecStore

        with self.explained("open", ""):
            return FsspecStore.from_url(self.url, read_only=read_only)

    def _open(self) -> tuple[Any, str]:
        """File system and path. fsspec keeps one file system a process, so this is cheap."""
        from fsspec.core import url_to_fs

        fs, path = url_to_fs(self.url)
        # Other processes write here too: a remembered listing would hide their objects.
        fs.invalidate_cache()
        return fs, path.rstrip("/")


def open_objects(url: str) -> Objects:
    """The objects at a URL: a local path or file:// URL, else any URL that fsspec knows.

    A local path becomes absolute, because workers on other processes have other working folders.
    """
    for local in ("file://", "local://"):
        url = url.removeprefix(local)
    if "://" in url:
        return RemoteObjects(url.rstrip("/"))
    return LocalObjects(os.path.abspath(os.path.expanduser(url)))


def unusable(
    doing: str, where: str, error: Exception, remedy: str = "set another store.url"
) -> StoreError:
    """The one line that explains why something could not be read or written."""
    number = error.errno if isinstance(error, OSError) else None
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    reason = " ".join(reason.split()) or type(error).__name__
    if number in _FULL:
        reason += f": free some space or {remedy}, then run the same command again"
    elif number in _FORBIDDEN and doing != "read":
        reason += f": make the folder writable or {remedy}"
    return StoreError(f"cannot {doing} {where}: {reason}")


def _files(folder: Path) -> Iterator[Path]:
    """Every file below a folder; none if there is no folder."""

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    for here, _, names in os.walk(folder, onerror=refuse):
        yield from (Path(here, name) for name in names)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
