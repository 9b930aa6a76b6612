"""A store in an object store, or at any other URL that fsspec opens."""

import math
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.locations.remote import AT_ONCE, code, file_system, is_trouble, reason
from egapipe.pipeline.store.objects.base import Objects
from egapipe.pipeline.store.objects.vouched import put_vouched

# What botocore, google-auth and gcsfs raise where the environment has no credentials.
_NO_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError"}
# What S3 and GCS say of a conditional put that found an object, or another put of the same.
_LOST = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}


class RemoteObjects(Objects):
    """A prefix of an object store, or anything else that fsspec opens.

    setting: of the configuration that names it, for what is said of it.
    """

    def __init__(self, url: str, setting: str = "store.url") -> None:
        super().__init__(url)
        self._setting = setting

    def get(self, key: str) -> bytes | None:
        """The bytes of an object, or None if there is none."""
        with self.explained("read", key):
            fs, root = self._open()
            try:
                data: bytes = fs.cat_file(f"{root}/{key}")
            except FileNotFoundError:
                return None
            return data

    def part(self, key: str, start: int, stop: int) -> bytes | None:
        """A part of an object: one request for a range."""
        with self.explained("read", key):
            fs, root = self._open()
            try:
                data: bytes = fs.cat_file(f"{root}/{key}", start=start, end=stop)
            except FileNotFoundError:
                return None
            return data

    def get_many(self, keys: Iterable[str]) -> Iterator[bytes | None]:
        """Many small reads: their latencies overlap."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            yield from pool.map(self.get, keys)

    def put(self, key: str, data: bytes) -> None:
        """One put, atomic and durable by itself."""
        with self.explained("write", key):
            fs, root = self._open()
            fs.pipe_file(f"{root}/{key}", data)

    def put_vouched(self, key: str, data: bytes, sha256: str) -> bool:
        """One put; S3 and GCS compare checksums of what has arrived."""
        with self.explained("write", key):
            fs, root = self._open()
            return put_vouched(fs, f"{root}/{key}", data, sha256)

    def create(self, key: str, data: bytes) -> bool:
        """One put that the store refuses if there is an object (S3: `If-None-Match: *`)."""
        with self.explained("write", key):
            fs, root = self._open()
            try:
                fs.pipe_file(f"{root}/{key}", data, mode="create")
            except Exception as error:  # each client has a class of its own; others are raised
                if exists_already(error):
                    return False
                if not is_unconditional(error):
                    raise
                # A server that knows no such condition: two at the same moment are not told apart.
                if fs.exists(f"{root}/{key}"):
                    return False
                fs.pipe_file(f"{root}/{key}", data)
        return True

    def delete(self, key: str) -> None:
        """Remove an object."""
        with self.explained("delete", key):
            fs, root = self._open()
            try:
                fs.rm_file(f"{root}/{key}")
            except FileNotFoundError:
                return

    def age(self, key: str) -> float:
        """Infinite: a remote put leaves no part of an object behind under another name."""
        del key
        return math.inf

    def names(self) -> list[str]:
        """First components of the keys below the prefix."""
        return [_name(entry) for entry in self._entries()]

    def folders(self) -> list[str]:
        """Those first components that are a prefix of others."""
        return [_name(entry) for entry in self._entries() if entry["type"] == "directory"]

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Every object below the prefix."""
        with self.explained("list", prefix):
            fs, root = self._open()
            try:
                found = fs.find(f"{root}/{prefix}".rstrip("/"), detail=True)
            except FileNotFoundError:
                return {}
            start = len(root.strip("/"))
            return {
                path.strip("/")[start:].lstrip("/"): int(found[path]["size"])
                for path in sorted(found)
            }

    def is_trouble(self, error: Exception) -> bool:
        """Those of the remote clients too."""
        return is_trouble(error)

    def failure(self, doing: str, where: str, error: Exception) -> StoreError:
        """What the client says, without the user that an endpoint's URL may name, and a remedy."""
        return StoreError(
            f"cannot {doing} {where}: {reason(error)}: {_remedy(doing, error, self._setting)}"
        )

    def _entries(self) -> list[dict[str, Any]]:
        """fsspec's entries of the prefix, without the empty object that some clients put there."""
        with self.explained("list", ""):
            fs, root = self._open()
            try:
                found = fs.ls(root, detail=True)
            except FileNotFoundError:
                return []
            inside = [entry for entry in found if entry["name"].strip("/") != root.strip("/")]
            return sorted(inside, key=_name)

    def _open(self) -> tuple[Any, str]:
        """File system and path, see `file_system`."""
        return file_system(self.url, f"correct {self._setting}")


def exists_already(error: Exception) -> bool:
    """Whether a conditional put found an object, or lost against another one at that moment."""
    return isinstance(error, FileExistsError) or code(error) in _LOST


def is_unconditional(error: Exception) -> bool:
    """Whether a client or a server does not know conditional puts."""
    return isinstance(error, NotImplementedError) or code(error) in ("NotImplemented", "501")


def _name(entry: dict[str, Any]) -> str:
    name: str = entry["name"]
    return name.rstrip("/").rpartition("/")[2]


def _remedy(doing: str, error: Exception, setting: str) -> str:
    elsewhere = f"or set another {setting}"
    if isinstance(error, PermissionError):
        return f"let the environment's credentials {doing} there, {elsewhere}"
    if isinstance(error, FileNotFoundError):
        return f"create the bucket, {elsewhere}"
    if type(error).__name__ in _NO_CREDENTIALS:
        return "set credentials in the environment, see `Object stores` in docs/store.md"
    return f"check {setting}, the network, and the endpoint and credentials in the environment"
