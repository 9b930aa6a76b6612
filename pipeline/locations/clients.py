"""Clients of other storage: a few requests, each one request, whoever sends them.

S3 is spoken to through obstore where it is installed, see `buckets`, all else through fsspec.
"""

import shutil
from typing import Any, BinaryIO, Protocol

from egapipe.pipeline.errors import UsageError, one_line
from egapipe.pipeline.locations import buckets
from egapipe.pipeline.locations.conditional import created
from egapipe.pipeline.locations.trouble import is_beyond
from egapipe.pipeline.locations.vouched import put_vouched

# Protocol -> the extra of this package that installs its client.
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
# One request an object: else s3fs asks for its size first, and reads a large one in several pieces
# between which another writer may replace it.
_OPTIONS = {"s3": {"max_concurrency": 1}, "s3a": {"max_concurrency": 1}}

# Of a large object; S3 takes ten thousand.
_PART = 32 << 20


class Client(Protocol):
    """What can be asked of a storage. Paths are those of `client_of`, with keys behind them.

    All raise FileNotFoundError where there is no such object or bucket, and what the client raises.
    """

    def get(self, path: str) -> bytes:
        """The bytes of an object."""
        ...

    def part(self, path: str, start: int, stop: int) -> bytes:
        """Bytes `start` to `stop`, which are some, fewer if the object ends there."""
        ...

    def put(self, path: str, data: bytes) -> None:
        """Write an object."""
        ...

    def put_vouched(self, path: str, data: bytes, sha256: str) -> bool:
        """Write an object: whether the storage vouches for its bytes, whose hex digest it gets."""
        ...

    def put_from(self, path: str, file: BinaryIO) -> None:
        """Write what follows in a file as an object, in parts; it is there when all of them are."""
        ...

    def create(self, path: str, data: bytes) -> bool:
        """Write an object unless there is one: whether it was written."""
        ...

    def delete(self, path: str) -> None:
        """Remove an object."""
        ...

    def children(self, path: str) -> dict[str, bool]:
        """First components of what is below a path: whether something lies below them."""
        ...

    def sizes(self, path: str) -> dict[str, int]:
        """Bytes of every object below a path, by its path relative to it; of what tools leave where
        a folder would be, an empty name or that of the folder."""
        ...


class FsspecClient:
    """An fsspec file system."""

    def __init__(self, fs: Any) -> None:
        self._fs = fs

    def get(self, path: str) -> bytes:
        """See `Client`."""
        data: bytes = self._fs.cat_file(path)
        return data

    def part(self, path: str, start: int, stop: int) -> bytes:
        """See `Client`."""
        try:
            data: bytes = self._fs.cat_file(path, start=start, end=stop)
        except Exception as error:  # each client has a class of its own; others are raised
            if not is_beyond(error):
                raise
            return b""
        return data

    def put(self, path: str, data: bytes) -> None:
        """See `Client`."""
        self._fs.pipe_file(path, data)

    def put_vouched(self, path: str, data: bytes, sha256: str) -> bool:
        """See `Client`."""
        return put_vouched(self._fs, path, data, sha256)

    def put_from(self, path: str, file: BinaryIO) -> None:
        """See `Client`."""
        with self._fs.open(path, "wb", block_size=_PART) as there:
            shutil.copyfileobj(file, there, _PART)

    def create(self, path: str, data: bytes) -> bool:
        """See `Client`."""
        fs = self._fs
        return created(
            lambda: fs.pipe_file(path, data, mode="create"),
            lambda: bool(fs.exists(path)),
            lambda: fs.pipe_file(path, data),
        )

    def delete(self, path: str) -> None:
        """See `Client`."""
        self._fs.rm_file(path)

    def children(self, path: str) -> dict[str, bool]:
        """See `Client`; without the empty object that some clients put at the path itself."""
        found = self._fs.ls(path, detail=True)
        inside = [entry for entry in found if entry["name"].strip("/") != path.strip("/")]
        return {_name(entry): entry["type"] == "directory" for entry in inside}

    def sizes(self, path: str) -> dict[str, int]:
        """See `Client`."""
        found = self._fs.find(path, detail=True)
        start = len(path.strip("/"))
        return {
            name.strip("/")[start:].lstrip("/"): int(entry["size"]) for name, entry in found.items()
        }


def client_of(url: str, correct: str = "correct the URL") -> tuple[Client, str]:
    """Client and path of a URL. This is cheap.

    Credentials are those that the client finds in the environment. Raises UsageError if the URL is
    none that is known, or needs a package to be installed, and what the client raises. correct:
    what to do then.
    """
    found = buckets.client_of(url)
    if found is not None:
        return found
    fs, path = file_system(url, correct)
    return FsspecClient(fs), path


def file_system(url: str, correct: str = "correct the URL") -> tuple[Any, str]:
    """fsspec's file system and path of a URL, see `client_of`; fsspec keeps one a process."""
    from fsspec.core import url_to_fs

    protocol = url.partition("://")[0]
    try:
        fs, path = url_to_fs(url, **_OPTIONS.get(protocol, {}))
    except (ValueError, ImportError) as error:
        extra = _EXTRAS.get(protocol)
        install = f"run `pip install egapipe[{extra}]`"
        other = f"{correct}, or install the package that it needs"
        raise UsageError(
            f"cannot open {url}: {one_line(error)}: {install if extra else other}"
        ) from error
    # Other processes write there too: a remembered listing would hide their objects.
    fs.invalidate_cache()
    return fs, path.rstrip("/")


def _name(entry: dict[str, Any]) -> str:
    name: str = entry["name"]
    return name.rstrip("/").rpartition("/")[2]
