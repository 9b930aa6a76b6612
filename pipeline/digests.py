"""Digests of large files, computed once a node."""

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from egapipe.pipeline.errors import EgapipeError
from egapipe.pipeline.files import replace_file
from egapipe.pipeline.paths import cache_dir

_log = logging.getLogger(__name__)
_DIGEST = re.compile(r"[0-9a-f]{64}")
# A file written twice within its clock's step keeps its time stamp (git calls that racily clean):
# what changed so recently is not remembered.
_SETTLED_SECONDS = 2.0


def cached_digest(files: Iterable[Path], extra: str, compute: Callable[[], str]) -> str:
    """`compute()`, remembered on this node for as long as `files` and `extra` stay the same.

    files: everything that `compute` reads; their path, size and modification time (ns) stand for
    their content. extra: whatever else the result depends on, a version of the method included.
    compute: gives 64 lower-case hex digits. Files changed in the last two seconds and a cache
    folder that cannot be written only mean that nothing is remembered.
    """
    states = [_state(file) for file in files]
    entry = _entry(states, extra)
    known = _read(entry)
    if known is not None:
        return known
    settled = all(mtime_ns < _now_ns() for _, _, mtime_ns in states)
    digest = compute()
    if settled:
        _write(entry, digest)
    return digest


def _now_ns() -> int:
    return int((time.time() - _SETTLED_SECONDS) * 1e9)


def _state(file: Path) -> tuple[str, int, int]:
    path = os.path.abspath(file)
    try:
        stat = os.stat(path)
    except OSError:
        # A missing file is part of the state too: it may be unreadable data.
        return path, -1, 0
    return path, stat.st_size, stat.st_mtime_ns


def _entry(states: list[tuple[str, int, int]], extra: str) -> Path:
    digest = hashlib.sha256(extra.encode())
    for state in states:
        digest.update(json.dumps(state).encode())
    return cache_dir() / "digests" / digest.hexdigest()


def _read(entry: Path) -> str | None:
    try:
        text = entry.read_text("ascii")
    except (OSError, UnicodeDecodeError):
        return None
    return text if _DIGEST.fullmatch(text) else None


def _write(entry: Path, digest: str) -> None:
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        replace_file(entry, digest.encode())
    except (OSError, EgapipeError) as error:
        _log.warning("the digest is not remembered, it will be computed again: %s", error)
