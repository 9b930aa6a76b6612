"""The worker processes of a Ray that a process has started."""

from contextlib import suppress

import psutil


def workers_below(pid: int, actor: str) -> list[psutil.Process]:
    """Living processes below another one that run an actor class."""
    found = []
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(pid).children(recursive=True):
            # One that dies meanwhile is no living one.
            with suppress(psutil.NoSuchProcess):
                if f"ray::{actor}" in " ".join(process.cmdline()):
                    found.append(process)
    return found
