"""Files that take the place of those an earlier run left in a folder, and of nothing else there.

The folder may be anybody's: a repository, a thesis, a mount point. It is never removed nor renamed.
"""

import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from egapipe.pipeline.disk.files import PARTIAL, replace_file
from egapipe.pipeline.errors import UsageError

_BEGIN = ".egapipe-"
# A living writer has its files beside, too.
_ABANDONED_SECONDS = 86_400.0


@contextmanager
def replacing(
    folder: Path, record: str, before: Collection[str] | None, mark: bytes
) -> Iterator[Path]:
    """A new folder for the length of a block; what lies in it then moves to `folder`, file by file.

    record: the file by which `folder` is known as written by us; it moves last. before: relative
    paths of what an earlier writer left, None where `folder` has not its record. mark: content of a
    record that vouches for files which are about to come. A block that raises changes nothing.
    Raises UsageError if a file of somebody else's would be replaced, or nothing can be written.
    """
    made = _make(folder)
    beside = folder / f"{_BEGIN}{uuid.uuid4().hex}{PARTIAL}"
    try:
        with _explained(folder):
            _remove_abandoned(folder)
            beside.mkdir()
        yield beside
        with _explained(folder), _one_at_a_time(folder):
            _move(beside, folder, record, before, mark)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        for one in made:
            # Not empty: somebody else has begun to use it.
            with suppress(OSError):
                one.rmdir()
        raise
    shutil.rmtree(beside, ignore_errors=True)


def _move(
    beside: Path, folder: Path, record: str, before: Collection[str] | None, mark: bytes
) -> None:
    files = [path.relative_to(beside).as_posix() for path in beside.rglob("*") if path.is_file()]
    for name in files:
        _check_own(folder, name, before)
    if before is None:
        replace_file(folder / record, mark)
    for name in sorted(files, key=lambda name: name == record):
        (folder / name).parent.mkdir(exist_ok=True)
        os.replace(beside / name, folder / name)
    for name in set(before or ()) - set(files):
        if not _leads_out(folder, name):
            with suppress(FileNotFoundError, NotADirectoryError):
                (folder / name).unlink()


def _leads_out(folder: Path, name: str) -> bool:
    """Whether a file lies in a folder that is a link, so that it is another folder's."""
    above = (folder / name).parent
    return above != folder and above.is_symlink()


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Of two writers that are done at once one moves its files after the other's. The lock is the
    system's on the folder itself: it leaves no file and ends with the process. Some file systems
    have none."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)


def _check_own(folder: Path, name: str, before: Collection[str] | None) -> None:
    place = folder / name
    if _leads_out(folder, name):
        raise UsageError(f"{place.parent} is a link: choose another folder, or remove it")
    if place.is_dir() or (before is None and os.path.lexists(place)):
        raise UsageError(
            f"{place} is there, and egapipe did not write it: choose another folder, or move it"
        )


def _make(folder: Path) -> list[Path]:
    """Make a folder and those that it lies in; what was made, the innermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    with _explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return missing


def _remove_abandoned(folder: Path) -> None:
    """What writers left that were killed long ago."""
    for path in folder.glob(f"{_BEGIN}{'[0-9a-f]' * 32}{PARTIAL}"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = error.filename or folder
        raise UsageError(
            f"cannot write {where}: {error.strerror or error}: choose another folder"
        ) from None
