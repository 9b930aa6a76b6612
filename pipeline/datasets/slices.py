"""A part of a file."""

import os
from pathlib import Path

from egapipe.pipeline.errors import ImageError


def read_slice(path: Path, offset: int, size: int) -> bytes:
    """`size` bytes of a file from `offset` on, read without moving any shared file position.

    So threads and forked processes may read at once. Raises ImageError if the file cannot be read
    or ends before.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            data = os.pread(file.fileno(), size, offset)
    except (OSError, ValueError, OverflowError, MemoryError) as error:
        # Without the path: a reason is kept with the row's key, and is the same on every machine.
        text = getattr(error, "strerror", None) or str(error)
        raise ImageError(f"the file cannot be read: {text}") from None
    if len(data) < size:
        raise ImageError(f"the file ends {size - len(data)} bytes before the image does")
    return data
