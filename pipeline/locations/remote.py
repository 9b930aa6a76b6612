"""Files at the URLs of other storage: ranged reads, states and listings.

A process has one client of a storage, so a URL is all that travels, and nothing stays open.
"""

import errno
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from egapipe.pipeline.errors import EgapipeError
from egapipe.pipeline.locations.clients import client_of, file_system
from egapipe.pipeline.locations.trouble import code, is_trouble, reason

T = TypeVar("T")
U = TypeVar("U")

AT_ONCE = 16
"""Requests of one process at a time, where each is small: their latencies overlap."""
# It prints the traceback of what it raises, unless somebody listens.
logging.getLogger("gcsfs").addHandler(logging.NullHandler())
# What storage calls a content, from the surest on: another content has another one.
_VERSIONS = ("ETag", "etag", "generation", "md5Hash", "md5", "Content-MD5", "crc32c", "sha256")
_TIMES = ("LastModified", "last_modified", "Last-Modified", "updated", "modified", "mtime")
# So many files of one folder are listed rather than asked for one by one.
_LISTED = 16


class RemoteError(ConnectionError):
    """A storage that cannot be reached or used: the machine's trouble, and none of its files'."""


class RemoteState(NamedTuple):
    """What stands for the content of a file elsewhere.

    size: in bytes, -1 where there is no file. version: an ETag, a checksum or a time. ctime: in ns,
    if a time is all there is; 0 otherwise.
    """

    path: str
    size: int = -1
    version: str = ""
    ctime: int = 0


def is_remote(file: object) -> bool:
    """Whether a file is named by a URL rather than by a path of this machine."""
    return "://" in str(file)


def read_range(url: str, start: int, stop: int) -> bytes:
    """Bytes `start` to `stop` of a file, fewer if it ends there, by one request.

    Raises FileNotFoundError, RemoteError.
    """
    if stop <= start:
        return b""
    with _reaching(url):
        client, path = client_of(url)
        data = client.part(path, start, stop)
    if len(data) > stop - start:
        raise RemoteError(f"{url}: its server sends whole files, parts of them are needed")
    return data


def state_of(url: str) -> RemoteState:
    """Size and version of a file. Raises FileNotFoundError, RemoteError."""
    with _reaching(url):
        fs, path = file_system(url)
        return _state(url, fs.info(path))


def states_of(urls: Sequence[str]) -> list[RemoteState]:
    """What stands for the content of each file. Raises RemoteError.

    Many files of one folder cost a listing, few a request each.
    """
    folders: dict[str, list[str]] = {}
    for url in urls:
        folders.setdefault(url.rpartition("/")[0], []).append(url)
    found: dict[str, RemoteState] = {}
    many = [f for f, u in folders.items() if len(u) >= _LISTED and not f.startswith("http")]
    for states in at_once(lambda f: _listed_states(f, folders[f]), many):
        found.update(states)
    few = [url for folder, some in folders.items() if folder not in many for url in some]
    found.update(zip(few, at_once(_state_or_none, few), strict=True))
    return [found[url] for url in urls]


def states_below(url: str) -> dict[str, RemoteState]:
    """What stands for the content of every file below a folder, by its path relative to it; none
    where there is no such folder. One listing. Raises RemoteError."""
    with _reaching(url):
        fs, root = file_system(url)
        try:
            found: Mapping[str, Any] = fs.find(root, detail=True)
        except FileNotFoundError:
            return {}
        below = {_below(name, root): entry for name, entry in found.items()}
        return {name: _state(f"{url}/{name}", entry) for name, entry in below.items() if name}


def changed_at(url: str) -> float:
    """When a file was last written to, in seconds since 1970 by its storage's clock.

    Raises FileNotFoundError, RemoteError.
    """
    with _reaching(url):
        fs, path = file_system(url)
        time: datetime = fs.modified(path)
        return time.timestamp()


def listed(url: str) -> list[str]:
    """Every file below a folder, relative to it, sorted; a name with a slash at its end is an empty
    folder. Raises FileNotFoundError if there is none, RemoteError."""
    with _reaching(url):
        fs, root = file_system(url)
        found: Mapping[str, Any] = fs.find(root, detail=True, withdirs=True)
        below = {_below(name, root): entry for name, entry in found.items()}
        files = [
            f"{name}/" if entry["type"] == "directory" else name
            for name, entry in below.items()
            if name
        ]
        if not files and not fs.isdir(root):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url)
        return sorted(files)


def matching(pattern: str) -> list[str]:
    """URLs of the files that a pattern matches, sorted. Raises RemoteError."""
    with _reaching(pattern):
        fs, path = file_system(pattern)
        entries: Mapping[str, Any] = fs.glob(path, detail=True)
        scheme = pattern.partition("://")[0]
        files = (name for name, entry in entries.items() if entry["type"] == "file")
        return sorted(n if is_remote(n) else f"{scheme}://{n.lstrip('/')}" for n in files)


def at_once(do: Callable[[T], U], items: Sequence[T], threads: int = AT_ONCE) -> list[U]:
    """What `do` gives for each item, several of them at a time."""
    if len(items) < 2:
        return [do(item) for item in items]
    with ThreadPoolExecutor(min(threads, len(items))) as pool:
        return list(pool.map(do, items))


def in_order(do: Callable[[T], U], items: Iterable[T], threads: int) -> Iterator[U]:
    """What `do` gives for each item, in the order of the items, of which a few are under way."""
    coming = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        running = deque(pool.submit(do, item) for item in islice(coming, 2 * threads))
        try:
            while running:
                yield running.popleft().result()
                running.extend(pool.submit(do, item) for item in islice(coming, 1))
        finally:
            for future in running:
                future.cancel()


@contextmanager
def _reaching(url: str) -> Iterator[None]:
    """Raise RemoteError for what a client says of its storage; a file that is not there is none."""
    try:
        yield
    except EgapipeError:
        raise
    except Exception as error:  # of clients with types of their own; others are raised
        if not is_trouble(error):
            raise
        if isinstance(error, FileNotFoundError) and code(error) != "NoSuchBucket":
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url) from error
        raise RemoteError(f"{url}: {reason(error)}") from error


def _state_or_none(url: str) -> RemoteState:
    try:
        return state_of(url)
    except FileNotFoundError:
        return RemoteState(url)


def _listed_states(folder: str, urls: Sequence[str]) -> dict[str, RemoteState]:
    with _reaching(folder):
        fs, root = file_system(folder)
        try:
            entries = {_below(e["name"], root): e for e in fs.ls(root, detail=True)}
        except FileNotFoundError:
            entries = {}
    names = {url: url.rpartition("/")[2] for url in urls}
    return {
        url: _state(url, entries[name]) if name in entries else RemoteState(url)
        for url, name in names.items()
    }


def _state(url: str, info: Mapping[str, Any]) -> RemoteState:
    size = int(info.get("size") or 0)
    version = next((str(info[name]) for name in _VERSIONS if info.get(name)), None)
    if version is not None:
        return RemoteState(url, size, version)
    time = next((info[name] for name in _TIMES if info.get(name)), None)
    if isinstance(time, datetime):
        return RemoteState(url, size, str(time), int(time.timestamp() * 1e9))
    if isinstance(time, int | float):
        return RemoteState(url, size, str(time), int(time * 1e9))
    # A time as a text is that of a web server, in whole seconds.
    return RemoteState(url, size, "" if time is None else str(time))


def _below(name: str, root: str) -> str:
    """A path of a listing relative to the folder that was listed."""
    return name.strip("/").removeprefix(root.strip("/")).strip("/")
