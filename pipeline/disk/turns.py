"""Turns of processes at one lock file: whoever must wait says for whom."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

# Shorter waits are not worth a line; longer ones are worth another.
_SILENT_SECONDS = 2.0
_AGAIN_SECONDS = 300.0
_LOCKS = Path("/proc/locks")
_log = logging.getLogger(__name__)


@contextmanager
def turn(lock: Path, what: str) -> Iterator[None]:
    """Hold a lock file for the length of a block. what: its holder makes, for messages.

    Raises OSError if the file cannot be made or locked.
    """
    holding, patience = FileLock(lock), _SILENT_SECONDS
    while not holding.is_locked:
        try:
            holding.acquire(timeout=patience)
        except Timeout:
            _log.warning("waiting for %s, which makes %s", _holder(lock), what)
            patience = _AGAIN_SECONDS
    try:
        yield
    finally:
        holding.release()


def _holder(lock: Path) -> str:
    """The process that holds a lock file, as far as this system tells it."""
    try:
        status, lines = lock.stat(), _LOCKS.read_text("ascii").splitlines()
    except (OSError, ValueError):
        return "another process"
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for line in lines:
        # `4: FLOCK  ADVISORY  WRITE 811 fe:00:1234 0 EOF`; behind `->` are those that wait.
        fields = line.split()
        if fields[1] == "FLOCK" and fields[5] == device and int(fields[4]) > 0:
            return f"process {fields[4]}"
    return "another process"
