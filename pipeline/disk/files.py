"""Files that are whole or absent, whenever the process dies; and reading those of others."""

import errno
import json
import math
import os
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from egapipe.pipeline.errors import EgapipeError, UsageError, one_line

PARTIAL = ".partial"
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
SMALL = 64 * 2**20
"""Bytes that no record, summary or model.json comes near."""
# Opening a pipe would wait for its writer; Windows has none in the file system.
_AT_ONCE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


class NoRegularFileError(OSError):
    """A pipe, device or folder where a file was expected, or one that is larger than is read."""


def read_regular(path: str | Path, most: int = SMALL) -> bytes:
    """The bytes of a regular file of at most `most` bytes.

    A pipe would be waited for, a device has no end, and files from elsewhere may name both. Raises
    OSError; NoRegularFileError says that it is none, or too large.
    """
    with _opened(path, os.stat(path), most) as file:
        # As much memory as it needs, not as it may need; it may have grown meanwhile.
        size = os.fstat(file.fileno()).st_size
        data = file.read(size + 1)
        if len(data) > size:
            data += file.read(most + 1 - len(data))
    if len(data) > most:
        raise NoRegularFileError(f"it is larger than {most:,} bytes")
    return data


def open_regular(path: str | Path) -> BinaryIO:
    """A regular file of any size, opened to read. Raises OSError as `read_regular` does.

    It is buffered, so that `read` returns as much as is asked for even where the system gives less
    at once, as network file systems may.
    """
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    return _opened(path, status, math.inf)


def _opened(path: str | Path, status: os.stat_result, most: float) -> BinaryIO:
    # A device is not even opened: that can rewind a tape.
    _check_regular(status, most)
    # The caller closes it.
    file = open(os.open(path, os.O_RDONLY | _AT_ONCE), "rb")  # noqa: SIM115
    try:
        # Another file may have taken its place.
        _check_regular(os.fstat(file.fileno()), most)
    except OSError:
        file.close()
        raise
    return file


def _check_regular(status: os.stat_result, most: float) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise NoRegularFileError("it is no regular file")
    if status.st_size > most:
        raise NoRegularFileError(f"it is larger than {most:,} bytes")


def read_json(path: Path) -> Any:
    """The value in a JSON file. Raises UsageError, in one line, if it is missing or damaged."""
    try:
        data = read_regular(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {one_line(error)}") from None
    return json_value(data, str(path))


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises UsageError, in one line, if it is missing or damaged."""
    return _object(read_json(path), str(path))


def json_object(data: bytes | str, where: str) -> dict[str, Any]:
    """The object in JSON text. Raises UsageError that names `where` if it is none."""
    return _object(json_value(data, where), where)


def json_value(data: bytes | str, where: str) -> Any:
    """The value in JSON text. Raises UsageError that names `where` if it is none."""
    try:
        return json.loads(data)
    except RecursionError:
        raise UsageError(f"{where} is damaged: it is nested too deeply") from None
    except ValueError as error:
        raise UsageError(f"{where} is damaged: {one_line(error)}") from None


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"{where} is damaged: it holds no JSON object")
    return value


@contextmanager
def whole_file(path: Path, partial: Path | None = None) -> Iterator[BinaryIO]:
    """A new file to write to, that is at `path` once the block has ended: it is written beside,
    flushed to disk and renamed. A block that raises leaves what was there before.

    partial: the name to write under, on the same file system; default `<name>.<32 hex
    digits>.partial`. Only a process that is killed leaves it behind. Raises OSError.
    """
    partial = partial or path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def output_file(path: Path, option: str) -> Iterator[BinaryIO]:
    """`whole_file` for what the user has asked for with an option of the command line.

    Raises UsageError, which names the option, if it cannot be written.
    """
    try:
        with whole_file(path) as file:
            yield file
    except OSError as error:
        raise UsageError(
            f"cannot write {path}: {one_line(error)}: choose another place with {option}"
        ) from None


def new_file(path: Path, pieces: Callable[[], Iterable[bytes]]) -> None:
    """A new file of these bytes, whole when it appears. Raises FileExistsError if there is one.

    pieces: all of them, each time that it is called. A file system without links shows the file
    while it is being written. Raises OSError.
    """
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        _write_new(partial, pieces())
        try:
            os.link(partial, path)
        except FileExistsError:
            raise
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            _write_new(path, pieces())
    finally:
        partial.unlink(missing_ok=True)


def _write_new(path: Path, pieces: Iterable[bytes]) -> None:
    with path.open("xb") as file:
        file.writelines(pieces)
        file.flush()
        os.fsync(file.fileno())


def replace_json(path: Path, content: Mapping[str, Any]) -> None:
    """Make a file hold this as JSON for people to read, see `replace_file`."""
    replace_file(path, (json.dumps(content, indent=2) + "\n").encode())


def replace_file(path: Path, data: bytes) -> None:
    """Make a file hold these bytes, in one step.

    Raises EgapipeError if the disk is full or the folder cannot be written.
    """
    try:
        with whole_file(path) as file:
            file.write(data)
    except OSError as error:
        raise EgapipeError(f"cannot write {path}: {error.strerror or error}") from None
