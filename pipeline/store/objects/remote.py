"""A store in an object store, or at any other URL that is known."""

import math
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import BinaryIO

from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.locations.clients import Client, client_of
from egapipe.pipeline.locations.remote import AT_ONCE
from egapipe.pipeline.locations.trouble import is_trouble, reason
from egapipe.pipeline.store.objects.base import Objects

# What botocore, google-auth and gcsfs raise where the environment has no credentials.
_NO_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError"}

# Of a file that is written in one request.
_WHOLE = 64 << 20


class RemoteObjects(Objects):
    """A prefix of an object store, or anything else that is opened by its URL.

    setting: of the configuration that names it, for what is said of it.
    """

    def __init__(self, url: str, setting: str = "store.url") -> None:
        super().__init__(url)
        self._setting = setting

    def get(self, key: str) -> bytes | None:
        """The bytes of an object, or None if there is none."""
        with self.explained("read", key), suppress(FileNotFoundError):
            client, path = self._at(key)
            return client.get(path)
        return None

    def part(self, key: str, start: int, stop: int) -> bytes | None:
        """A part of an object: one request for a range."""
        with self.explained("read", key), suppress(FileNotFoundError):
            client, path = self._at(key)
            return client.part(path, start, stop)
        return None

    def get_many(self, keys: Iterable[str]) -> Iterator[bytes | None]:
        """Many small reads: their latencies overlap."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            yield from pool.map(self.get, keys)

    def put(self, key: str, data: bytes) -> None:
        """One put, atomic and durable by itself."""
        with self.explained("write", key):
            client, path = self._at(key)
            client.put(path, data)

    def put_vouched(self, key: str, data: bytes, sha256: str) -> bool:
        """One put; S3 and GCS compare checksums of what has arrived."""
        with self.explained("write", key):
            client, path = self._at(key)
            return client.put_vouched(path, data, sha256)

    def create(self, key: str, data: bytes) -> bool:
        """One put that the store refuses if there is an object (S3: `If-None-Match: *`)."""
        with self.explained("write", key):
            client, path = self._at(key)
            return client.create(path, data)

    def create_from(self, key: str, file: BinaryIO) -> bool:
        """As `create` where it is small; else in parts, unless there is an object already."""
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        if size <= _WHOLE:
            return self.create(key, file.read())
        with self.explained("write", key):
            client, path = self._at(key)
            with suppress(FileNotFoundError):
                client.part(path, 0, 1)
                return False
            client.put_from(path, file)
        return True

    def delete(self, key: str) -> None:
        """Remove an object."""
        with self.explained("delete", key), suppress(FileNotFoundError):
            client, path = self._at(key)
            client.delete(path)

    def age(self, key: str) -> float:
        """Infinite: a remote put leaves no part of an object behind under another name."""
        del key
        return math.inf

    def names(self) -> list[str]:
        """First components of the keys below the prefix."""
        return sorted(self._children())

    def folders(self) -> list[str]:
        """Those first components that are a prefix of others."""
        return sorted(name for name, is_folder in self._children().items() if is_folder)

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Every object below the prefix."""
        with self.explained("list", prefix), suppress(FileNotFoundError):
            client, path = self._at(prefix)
            found = _without_folders(client.sizes(path))
            below = f"{prefix.rstrip('/')}/" if prefix else ""
            return {f"{below}{key}": found[key] for key in sorted(found)}
        return {}

    def is_trouble(self, error: Exception) -> bool:
        """Those of the remote clients too."""
        return is_trouble(error)

    def failure(self, doing: str, where: str, error: Exception) -> StoreError:
        """What the client says, without the user that an endpoint's URL may name, and a remedy."""
        return StoreError(
            f"cannot {doing} {where}: {reason(error)}: {_remedy(doing, error, self._setting)}"
        )

    def _children(self) -> dict[str, bool]:
        with self.explained("list", ""), suppress(FileNotFoundError):
            client, path = self._at("")
            return client.children(path)
        return {}

    def _at(self, key: str) -> tuple[Client, str]:
        """Client and path of an object, see `client_of`."""
        client, root = client_of(self.url, f"correct {self._setting}")
        return client, "/".join(filter(None, (root, key.rstrip("/"))))


def _without_folders(sizes: dict[str, int]) -> dict[str, int]:
    """Objects without the empty ones that some tools put where a folder would be."""
    empty = {key for key, size in sizes.items() if not size}
    if not empty:
        return sizes
    above = {above for key in sizes for above in _above(key)}
    return {key: size for key, size in sizes.items() if key not in empty or key not in above}


def _above(key: str) -> Iterator[str]:
    """What a key lies below."""
    while key:
        key = key.rpartition("/")[0]
        yield key


def _remedy(doing: str, error: Exception, setting: str) -> str:
    elsewhere = f"or set another {setting}"
    if isinstance(error, PermissionError):
        return f"let the environment's credentials {doing} there, {elsewhere}"
    if isinstance(error, FileNotFoundError):
        return f"create the bucket, {elsewhere}"
    if type(error).__name__ in _NO_CREDENTIALS:
        return "set credentials in the environment, see `Object stores` in docs/store.md"
    return f"check {setting}, the network, and the endpoint and credentials in the environment"
