"""A file of a data set, opened to read at any place of it: on this machine, or at a URL.

`reading` reads an image of one at once; here is what an index or a footer is made from.
"""

import io
import os
from functools import partial
from typing import BinaryIO, cast

from egapipe.pipeline.datasets.reading import attempt
from egapipe.pipeline.disk.files import open_regular
from egapipe.pipeline.locations.remote import RemoteState, is_remote, read_range, state_of

# Between the headers of a tar lie its images: to read them too costs less than to ask again, up to
# about what a request's latency could have brought.
_AHEAD_BYTES = 1 << 22


class RemoteFile(io.RawIOBase):
    """A file at a URL, read by a request a read; nothing stays open. Not for several threads.

    Reading raises FileNotFoundError if it is gone, MachineError if its storage cannot be used.
    """

    def __init__(self, url: str) -> None:
        """Raises as reading does."""
        self.url = url
        self.state: RemoteState = attempt(partial(state_of, url))
        self._at = 0

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
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.state.size}[whence]
        if base + offset < 0:
            raise ValueError(f"negative position {base + offset}")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: object) -> int:
        """Fill a buffer, unless the file ends before."""
        view = memoryview(cast(bytearray, buffer)).cast("B")
        stop = min(self._at + len(view), self.state.size)
        data = attempt(partial(read_range, self.url, self._at, stop))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)


def open_data(file: str) -> BinaryIO:
    """A file of a data set, buffered. Raises OSError, MachineError."""
    if not is_remote(file):
        return open_regular(file)
    return cast(BinaryIO, io.BufferedReader(RemoteFile(file), _AHEAD_BYTES))
