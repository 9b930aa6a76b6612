"""Digests of large files, computed once a node."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from egapipe.pipeline.disk.caches import DIGESTS
from egapipe.pipeline.disk.remembered import remembered

_DIGEST = re.compile(rb"[0-9a-f]{64}")


def cached_digest(files: Iterable[str | Path], extra: str, compute: Callable[[], str]) -> str:
    """`compute()`, 64 lower-case hex digits, for these files; see `remembered`."""
    return remembered(DIGESTS, files, extra, compute, encode=str.encode, decode=_decode)


def _decode(data: bytes) -> str | None:
    return data.decode() if _DIGEST.fullmatch(data) else None
