"""What is computed from files, once a node."""

import errno
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from egapipe.pipeline.disk.caches import Kind, touch
from egapipe.pipeline.disk.files import replace_file
from egapipe.pipeline.disk.paths import cache_dir
from egapipe.pipeline.errors import EgapipeError
from egapipe.pipeline.locations.remote import RemoteState, is_remote, states_of

T = TypeVar("T")

_log = logging.getLogger(__name__)
# A file written twice within its clock's step keeps its time stamp (git calls that racily clean):
# what changed so recently is not remembered.
SETTLED_SECONDS = 2.0
# A clock of a file server may be that far ahead of this machine's without anybody's fault.
_SKEW_SECONDS = 60.0
_MISSING = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}


class State(NamedTuple):
    """What stands for a file's content: what no write leaves as it was.

    The time of the last change of the inode cannot be set by hand: copying with the old time, or
    renaming another file to this name, shows in it or in the inode's number. size: -1 where there
    is no file, which is a state too: it may be unreadable data. Times in ns.
    """

    path: str
    size: int = -1
    mtime: int = 0
    ctime: int = 0
    inode: int = 0
    device: int = 0


def remembered(
    kind: Kind,
    files: Iterable[str | Path],
    extra: str,
    compute: Callable[[], T],
    *,
    encode: Callable[[T], bytes],
    decode: Callable[[bytes], T | None],
) -> T:
    """`compute()`, remembered on this node for as long as `files` and `extra` stay the same.

    kind: of cache, where the result is kept. files: everything that `compute` reads, paths and
    URLs; their `State` or `RemoteState` stands for their content. extra: whatever else the result
    depends on, a version of the method included. decode: None for bytes that are no result. Files
    that changed in the last two seconds or while `compute` read them, files whose state cannot be
    read and a cache folder that cannot be written only mean that nothing is remembered. A
    modification time in the future does not matter, for the inode's own time counts; where that one
    lies in the future too, a warning says so.
    """
    paths = [str(f) if is_remote(f) else os.path.abspath(f) for f in files]
    began = time.time()
    states = _states(paths)
    if states is None:
        return compute()
    entry = kind.file(cache_dir(), _key(states, extra))
    known = _read(entry)
    result = None if known is None else decode(known)
    if result is not None:
        touch(entry)
        return result
    result = compute()
    if _settled(states, began) and _states(paths) == states:
        _write(entry, encode(result))
    return result


def _states(paths: Sequence[str]) -> list[State | RemoteState] | None:
    """None where the machine, or a storage, cannot say what a file's state is."""
    try:
        urls = [path for path in paths if is_remote(path)]
        remote = dict(zip(urls, states_of(urls), strict=True))
        found = [remote[path] if path in remote else _state(path) for path in paths]
    except (OSError, ValueError):
        return None
    unknown = any(isinstance(s, RemoteState) and s.size >= 0 and not s.version for s in found)
    return None if unknown else found


def _state(path: str) -> State:
    try:
        stat = os.stat(path)
    except OSError as error:
        if error.errno not in _MISSING:
            raise
        return State(path)
    return State(path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev)


def _settled(states: Sequence[State | RemoteState], now: float) -> bool:
    newest = max(states, key=lambda state: state.ctime, default=State(""))
    if newest.ctime > (now + _SKEW_SECONDS) * 1e9:
        _log.warning(
            "%s was changed in the future by this machine's clock: what is computed from it is not "
            "remembered, and computed at every start until the clock has passed that time; set the "
            "clock of this machine or of the file server",
            newest.path,
        )
    return newest.ctime < (now - SETTLED_SECONDS) * 1e9


def _key(states: Sequence[State | RemoteState], extra: str) -> str:
    digest = hashlib.sha256(extra.encode())
    for state in states:
        digest.update(json.dumps(state).encode())
    return digest.hexdigest()


def _read(entry: Path) -> bytes | None:
    try:
        return entry.read_bytes()
    except OSError:
        return None


def _write(entry: Path, data: bytes) -> None:
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        replace_file(entry, data)
    except (OSError, EgapipeError) as error:
        _log.warning("what was computed is not remembered, it will be made again: %s", error)
