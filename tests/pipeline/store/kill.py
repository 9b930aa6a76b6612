"""Killing a process for real at a chosen step of its work on files."""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

_CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.link"}
_WRITING = os.O_WRONLY | os.O_RDWR


def _changes_files(event: str, args: tuple[Any, ...]) -> bool:
    if event == "open":
        path, _, flags = args
        return isinstance(path, (str, bytes)) and bool(flags & _WRITING)
    return event in _CHANGES


def killed_before(step: int, act: Callable[[], object]) -> bool:
    """Run `act` in a fork that gets SIGKILL before its step-th change of the file system.

    Changes are counted from 0: opening a file for writing, flushing one or a folder, renaming,
    linking, removing, making a folder. What is after one of them is before the next. Returns
    whether it got so far; False means that `act` ended by itself.
    """
    pid = os.fork()
    if pid == 0:
        _act_and_exit(step, act)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return True
    assert os.waitstatus_to_exitcode(status) == 0, "the process to be killed has failed by itself"
    return False


def _act_and_exit(step: int, act: Callable[[], object]) -> None:
    left = step

    def take() -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if _changes_files(event, args):
            take()

    flush = os.fsync

    def flushing(handle: int) -> None:
        take()
        flush(handle)

    try:
        sys.addaudithook(hook)
        # Of which no hook is told.
        os.fsync = flushing
        act()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
