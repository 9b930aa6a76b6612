"""A large file that is made part by part, in any order, and goes on where a killed process stopped.

Behind the last byte that the file will have stand, until it is whole, a digest of what it will be
and a byte a part: 1 once the part is there. That byte is written after the part has reached the
disk, so that neither a kill nor a power failure leaves it for a part that is not there.
"""

import hashlib
import os
from collections.abc import Iterable
from io import FileIO
from typing import Any

import numpy as np

_METHOD = b"egapipe parts 1\n"
_DONE = b"\1"


class Parts:
    """An unfinished file, locked by whoever makes it. Threads may write parts.

    done: the parts that are there.
    """

    def __init__(self, file: FileIO, size: int, count: int, identity: bytes) -> None:
        """Take up the file, or begin it: what it holds of anything else is let go.

        file: opened to read and to write. size: in bytes, of the whole file. count: of its parts.
        identity: whatever decides what is where in it. Raises OSError.
        """
        self._file, self._size = file.fileno(), size
        self._head = hashlib.sha256(_METHOD + f"{size} {count}\n".encode() + identity).digest()
        self.done = self._found(count)

    def write(self, data: Any, place: int) -> None:
        """Write bytes to their place. Raises OSError."""
        left = memoryview(data).cast("B")
        while left:
            count = os.pwrite(self._file, left, place)
            left, place = left[count:], place + count

    def settle(self, parts: Iterable[int]) -> None:
        """Note that these parts were written, once they are on the disk. Raises OSError."""
        new = set(parts) - self.done
        if not new:
            return
        _flush(self._file)
        for part in new:
            os.pwrite(self._file, _DONE, self._size + len(self._head) + part)
        self.done |= new

    def finish(self) -> None:
        """Leave nothing but the file, all of whose parts were written. Raises OSError."""
        os.ftruncate(self._file, self._size)
        os.fsync(self._file)

    def _found(self, count: int) -> set[int]:
        """The parts that are there; of another file, none."""
        end = self._size + len(self._head)
        if os.fstat(self._file).st_size == end + count:
            noted = os.pread(self._file, len(self._head), self._size)
            if noted == self._head:
                flags = np.frombuffer(os.pread(self._file, count, end), np.uint8)
                return set(np.flatnonzero(flags == _DONE[0]).tolist())
        os.ftruncate(self._file, 0)
        os.ftruncate(self._file, end + count)
        os.pwrite(self._file, self._head, self._size)
        return set()


def _flush(file: int) -> None:
    # macOS has no fdatasync.
    getattr(os, "fdatasync", os.fsync)(file)
