"""Files that are whole or absent, whenever the process dies."""

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from egapipe.pipeline.errors import EgapipeError

PARTIAL = ".partial"
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


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


def new_file(path: Path, data: bytes) -> None:
    """A new file of these bytes, whole when it appears. Raises FileExistsError if there is one.

    A file system without links shows it while it is being written. Raises OSError.
    """
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        _write_new(partial, data)
        try:
            os.link(partial, path)
        except FileExistsError:
            raise
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            _write_new(path, data)
    finally:
        partial.unlink(missing_ok=True)


def _write_new(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, data: bytes) -> None:
    """Make a file hold these bytes, in one step.

    Raises EgapipeError if the disk is full or the folder cannot be written.
    """
    try:
        with whole_file(path) as file:
            file.write(data)
    except OSError as error:
        raise EgapipeError(f"cannot write {path}: {error.strerror or error}") from None
