"""A file that lies elsewhere, of which the ranges are fetched that are read."""

import io
import os
from collections.abc import Callable
from typing import cast


class RangedFile(io.RawIOBase):
    """A file to read and to seek in; a read is a request, nothing stays open. Not for several
    threads."""

    def __init__(self, size: int, part: Callable[[int, int], bytes]) -> None:
        """size: in bytes. part: those from `start` to `stop`, fewer if the file ends there."""
        self._size, self._part, self._at = size, part, 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Position, in bytes."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position, see `io.IOBase`."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"negative position {base + offset}")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: object) -> int:
        """Fill a buffer, unless the file ends before. Raises what fetching does."""
        view = memoryview(cast(bytearray, buffer)).cast("B")
        stop = min(self._at + len(view), self._size)
        data = self._part(self._at, stop) if stop > self._at else b""
        view[: len(data)] = data
        self._at += len(data)
        return len(data)
