"""What is computed from files, once a node."""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from egapipe.pipeline.errors import EgapipeError
from egapipe.pipeline.files import replace_file
from egapipe.pipeline.paths import cache_dir

T = TypeVar("T")

_log = logging.getLogger(__name__)
# A file written twice within its clock's step keeps its time stamp (git calls that racily clean):
# what changed so recently is not remembered.
_SETTLED_SECONDS = 2.0


def remembered(
    name: str,
    files: Iterable[Path],
    extra: str,
    compute: Callable[[], T],
    *,
    encode: Callable[[T], bytes],
    decode: Callable[[bytes], T | None],
) -> T:
    """`compute()`, remembered on this node for as long as `files` and `extra` stay the same.

    name: `{}` in it, the key of an entry, makes it a file's name within the cache folder. files:
    everything that `compute` reads; their path, size and modification time (ns) stand for their
    content. extra: whatever else the result depends on, a version of the method included. decode:
    None for bytes that are no result. Files changed in the last two seconds and a cache folder that
    cannot be written only mean that nothing is remembered.
    """
    states = [_state(file) for file in files]
    entry = cache_dir() / name.format(_key(states, extra))
    known = _read(entry)
    result = None if known is None else decode(known)
    if result is not None:
        return result
    settled = all(mtime_ns < _settled_ns() for _, _, mtime_ns in states)
    result = compute()
    if settled:
        _write(entry, encode(result))
    return result


def _settled_ns() -> int:
    return int((time.time() - _SETTLED_SECONDS) * 1e9)


def _state(file: Path) -> tuple[str, int, int]:
    path = os.path.abspath(file)
    try:
        stat = os.stat(path)
    except OSError:
        # A missing file is part of the state too: it may be unreadable data.
        return path, -1, 0
    return path, stat.st_size, stat.st_mtime_ns


def _key(states: list[tuple[str, int, int]], extra: str) -> str:
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
