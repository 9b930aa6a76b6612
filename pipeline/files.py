"""Files that are whole or absent, whenever the process dies."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from egapipe.pipeline.errors import EgapipeError

PARTIAL = ".partial"


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


def replace_file(path: Path, data: bytes) -> None:
    """Make a file hold these bytes, in one step.

    Raises EgapipeError if the disk is full or the folder cannot be written.
    """
    try:
        with whole_file(path) as file:
            file.write(data)
    except OSError as error:
        raise EgapipeError(f"cannot write {path}: {error.strerror or error}") from None
