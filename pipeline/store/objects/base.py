"""Objects: bytes under keys at one URL, on a local disk or in an object store.

A key is a relative path with forward slashes. `put` is atomic in both places: a reader sees the old
object, the new one or none, never a part. Locally that is a temporary file, an fsync and a rename;
an object store's put is atomic by itself, and nothing here asks it to rename.
"""

import errno
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from egapipe.pipeline.errors import EgapipeError, StoreError, one_line

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_FOLDER = {errno.ENOTDIR, errno.EEXIST}


class Objects(ABC):
    """The objects of one store. Cheap to make and to pickle: it holds a URL and no connection."""

    def __init__(self, url: str) -> None:
        self.url = url

    def below(self, name: str) -> "Objects":
        """The objects in a folder of these."""
        return type(self)(f"{self.url.rstrip('/')}/{name}")

    @property
    def home(self) -> "Objects":
        """Where new objects lie: these, unless several places are seen as one."""
        return self

    def located(self, key: str) -> str:
        """Where an object lies below the URL, for people."""
        return key

    def named(self, key: str) -> str:
        """The URL of an object, for people."""
        return f"{self.url}/{self.located(key)}"

    @abstractmethod
    def get(self, key: str) -> bytes | None:
        """The bytes of an object, or None if there is none."""

    @abstractmethod
    def part(self, key: str, start: int, stop: int) -> bytes | None:
        """Bytes `start` to `stop` of an object, fewer if it ends there, or None."""

    @abstractmethod
    def put(self, key: str, data: bytes) -> None:
        """Write a whole object, atomically and durably."""

    def put_vouched(self, key: str, data: bytes, sha256: str) -> bool:
        """Write a whole object as `put` does: whether the place vouches that it holds these bytes.

        sha256: hex digest of the data. Where nobody vouches, the object is to be read back.
        """
        del sha256
        self.put(key, data)
        return False

    @abstractmethod
    def create(self, key: str, data: bytes) -> bool:
        """Write a whole object as `put` does, unless there is one: whether it was written.

        Of several writers at once, exactly one is told that it has written.
        """

    def create_from(self, key: str, file: BinaryIO) -> bool:
        """Write the content of a file as `create` does, without holding more of it in memory than
        is written at once. A place that takes large objects in parts only does not tell two writers
        of the same moment apart."""
        file.seek(0)
        return self.create(key, file.read())

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object; none there is no error."""

    @abstractmethod
    def age(self, key: str) -> float:
        """Seconds since an object was last written to; infinite if none here is ever written to,
        because `put` makes it in one step, or if there is none."""

    @abstractmethod
    def names(self) -> list[str]:
        """First path components of all keys, sorted."""

    @abstractmethod
    def folders(self) -> list[str]:
        """Those first path components that have keys below them, sorted."""

    @abstractmethod
    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Key -> bytes of every object below a folder, sorted by key."""

    def get_many(self, keys: Iterable[str]) -> Iterator[bytes | None]:
        """The objects of several keys, in their order."""
        return map(self.get, keys)

    @contextmanager
    def explained(self, doing: str, key: str) -> Iterator[None]:
        """Turn what the place raises into a StoreError of one line."""
        try:
            yield
        except EgapipeError:
            raise
        except Exception as error:  # which of them are the place's, the place knows
            if not self.is_trouble(error):
                raise
            raise self.failure(doing, f"{self.url}/{key}".rstrip("/"), error) from error

    def is_trouble(self, error: Exception) -> bool:
        """Whether a place raises this that cannot be reached or used; else it is a bug."""
        return isinstance(error, OSError)

    def failure(self, doing: str, where: str, error: Exception) -> StoreError:
        """The one line that explains what the place has raised."""
        return unusable(doing, where, error)


def unusable(
    doing: str, where: str, error: Exception, remedy: str = "set another store.url"
) -> StoreError:
    """The one line that explains why something could not be read or written."""
    number = error.errno if isinstance(error, OSError) else None
    reason = one_line(error)
    if number in _FULL:
        reason += f": free some space or {remedy}, then run the same command again"
    elif number in _FORBIDDEN and doing != "read":
        reason += f": make the folder writable or {remedy}"
    elif number in _NO_FOLDER:
        reason += f": a file is where a folder should be: remove it or {remedy}"
    elif doing == "write":
        reason += f": {remedy}"
    return StoreError(f"cannot {doing} {where}: {reason}")
