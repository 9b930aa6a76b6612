"""How much memory this process may use: the one answer to that question."""

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

from egapipe.pipeline.machine.cores import GROUPS, OWN_GROUP, folders_of_group

# What version 1 of control groups says where there is no limit.
_UNLIMITED = 1 << 60


def total_memory() -> int:
    """Bytes of this machine, and no more than the process's control groups allow."""
    return min([psutil.virtual_memory().total, *memory_limits(GROUPS, OWN_GROUP)])


def free_memory() -> int:
    """Bytes that are free or can be had at once, as those of cached files, and no more than the
    control groups allow at all."""
    return min([psutil.virtual_memory().available, *memory_limits(GROUPS, OWN_GROUP)])


def resident_bytes() -> int:
    """Bytes that this process holds in memory."""
    held: int = psutil.Process().memory_info().rss
    return held


def return_free_memory() -> None:
    """Give the system back what this process has freed, where its allocator can: what it allocates
    next then shows in `resident_bytes`."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def memory_limits(groups: Path, own: Path) -> Iterator[int]:
    """Bytes that control groups allow, of a group and of those around it.

    groups: where they are mounted, version 2 or 1. own: the file that names the process's group.
    """
    files = [folder / "memory.max" for folder in folders_of_group(groups, own, "")]
    for folder in folders_of_group(groups / "memory", own, "memory"):
        files.append(folder / "memory.limit_in_bytes")
    for file in files:
        try:
            text = file.read_text("ascii", "replace").strip()
        except OSError:
            continue
        if text.isdecimal() and 0 < int(text) < _UNLIMITED:
            yield int(text)
