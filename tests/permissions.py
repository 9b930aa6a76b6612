"""Permissions that count, whoever runs the tests."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534


@contextmanager
def unprivileged(folder: Path) -> Iterator[None]:
    """For the length of a block this process is not root; it may still list `folder`.

    What is imported in the block for the first time may be out of reach: do it before.
    """
    if os.geteuid() != 0:
        yield
        return
    modes = {path: path.stat().st_mode for path in (folder, *folder.parents)}
    for path, mode in modes.items():
        path.chmod(mode | (0o555 if path == folder else 0o111))
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        for path, mode in modes.items():
            path.chmod(mode)
