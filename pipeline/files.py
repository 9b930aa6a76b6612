"""Files that are whole or absent, whenever the process dies."""

import os
import tempfile
from pathlib import Path

from egapipe.pipeline.errors import EgapipeError


def replace_file(path: Path, data: bytes) -> None:
    """Write a file beside its place, flush it to disk and rename it there.

    Raises EgapipeError if the disk is full or the folder cannot be written.
    """
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise EgapipeError(f"cannot write {path}: {error.strerror or error}") from None
