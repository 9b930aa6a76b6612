"""Reading images: what is wrong with the data, and what is trouble of the machine.

Only bad content and a missing file are facts about the data. A stale handle of a file server, an
I/O error, too many open files, no memory: the same row can be read tomorrow, or by another host.
"""

import errno
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from egapipe.pipeline.disk.files import NoRegularFileError, open_regular, read_regular
from egapipe.pipeline.errors import ImageError, MachineError, one_line
from egapipe.pipeline.locations.remote import RemoteError, is_remote, read_range, state_of

T = TypeVar("T")


class NamedError(MachineError):
    """Says which row and host already."""


MAX_BYTES = 1 << 30
"""Of an image file: no image that is decoded comes near."""
PAUSES = (0.1, 0.5, 2.0)
"""Seconds before each further try."""

# What a path that names no file gives, however often it is tried.
_NO_FILE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EISDIR}


def of_machine(error: BaseException) -> bool:
    """Whether an error says nothing about the data that were to be read.

    Decoders raise OSError too, without a number: those are of the content.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno not in _NO_FILE
    return isinstance(error, MemoryError | TimeoutError | ConnectionError)


def attempt(read: Callable[[], T]) -> T:
    """`read()`, tried again where it is the machine's trouble.

    Raises MachineError if it stays so; whatever else `read` raises.
    """
    for pause in (*PAUSES, None):
        try:
            return read()
        except (OSError, MemoryError) as error:
            if not of_machine(error):
                raise
            if pause is None:
                raise MachineError(_reason(error)) from error
            time.sleep(pause)
    raise AssertionError("the last try returns or raises")


def read_bytes(file: str | Path) -> bytes:
    """The bytes of an image file, at a path or a URL: a regular one of at most MAX_BYTES.

    Raises ImageError if there is none, MachineError if the machine cannot read it.
    """
    if is_remote(file):
        return _content(partial(_remote_whole, str(file)))
    return _content(partial(read_regular, file, MAX_BYTES))


def read_slice(file: str | Path, offset: int, size: int) -> bytes:
    """`size` bytes of a file from `offset` on, read without moving any shared file position.

    So threads and forked processes may read at once. Raises ImageError if there is no such regular
    file, it ends before, or it is more than MAX_BYTES, MachineError if the machine cannot read it.
    """
    return _content(partial(_slice, file, offset, size))


@contextmanager
def naming(name: str, row: int, key: str) -> Iterator[None]:
    """Say which row of a data set, and which host, met trouble of the machine in a block."""
    try:
        yield
    except NamedError:
        raise
    except (MachineError, MemoryError) as error:
        reason = str(error) if isinstance(error, MachineError) else _reason(error)
        raise NamedError(
            f"row {row} ({key}) of data set {name} cannot be read on {socket.gethostname()}: "
            f"{reason}: that is the machine's trouble and not recorded as the image's: mend it, "
            "then run the same command again"
        ) from error


@contextmanager
def explaining(doing: str) -> Iterator[None]:
    """Say in one line which host met trouble of the machine in a block, whatever was read there."""
    try:
        yield
    except (OSError, MemoryError) as error:
        if not of_machine(error):
            raise
        raise NamedError(
            f"{doing} on {socket.gethostname()} failed: {_reason(error)}: that is the machine's "
            "trouble and not recorded as any image's: mend it, then run the same command again"
        ) from error


def _content(read: Callable[[], bytes]) -> bytes:
    try:
        return attempt(read)
    except (OSError, ValueError, OverflowError) as error:
        # Without the path: a reason is kept with the row's key, and is the same on every machine.
        text = getattr(error, "strerror", None) or str(error)
        raise ImageError(f"the file cannot be read: {text}") from None


def _slice(path: str | Path, offset: int, size: int) -> bytes:
    if offset < 0 or size < 0:
        raise ImageError(f"{size:,} bytes from byte {offset:,} on are no image")
    if is_remote(path):
        return _remote_slice(str(path), offset, size)
    with open_regular(path) as file:
        # Before memory is asked for: a damaged index may name any size.
        _check_inside(offset, size, os.fstat(file.fileno()).st_size)
        file.seek(offset)
        data = file.read(size)
    if len(data) < size:
        raise ImageError(f"the file ends {size - len(data)} bytes before the image does")
    return data


def _check_inside(offset: int, size: int, length: int) -> None:
    """Raise ImageError unless a file of `length` bytes has the slice, and it is not too large."""
    missing = offset + size - length
    if missing > 0:
        raise ImageError(f"the file ends {min(missing, size)} bytes before the image does")
    if size > MAX_BYTES:
        raise ImageError(f"it is larger than {MAX_BYTES:,} bytes")


def _remote_whole(url: str) -> bytes:
    data = read_range(url, 0, MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise NoRegularFileError(f"it is larger than {MAX_BYTES:,} bytes")
    return data


def _remote_slice(url: str, offset: int, size: int) -> bytes:
    # The storage is asked for its size only where the slice did not come.
    data = read_range(url, offset, offset + min(size, MAX_BYTES + 1))
    if len(data) < size or size > MAX_BYTES:
        _check_inside(offset, size, state_of(url).size)
        raise RemoteError(f"{url}: {size - len(data)} of {size} bytes did not come")
    return data


def _reason(error: BaseException) -> str:
    name = errno.errorcode.get(getattr(error, "errno", None) or 0)
    return f"{one_line(error)} ({name})" if name else one_line(error)
