"""A file of a data set, opened to read at any place of it: on this machine, or at a URL.

`reading` reads an image of one at once; here is what an index or a footer is made from.
"""

import io
from functools import partial
from typing import BinaryIO, cast

from egapipe.pipeline.datasets.decoding.reading import attempt
from egapipe.pipeline.disk.files import open_regular
from egapipe.pipeline.locations.ranged import RangedFile
from egapipe.pipeline.locations.remote import RemoteState, is_remote, read_range, state_of

# Between the headers of a tar lie its images: to read them too costs less than to ask again, up to
# about what a request's latency could have brought.
_AHEAD_BYTES = 1 << 22


class RemoteFile(RangedFile):
    """A file at a URL.

    Reading raises FileNotFoundError if it is gone, MachineError if its storage cannot be used.
    """

    def __init__(self, url: str) -> None:
        """Raises as reading does."""
        self.state: RemoteState = attempt(partial(state_of, url))
        super().__init__(
            self.state.size, lambda start, stop: attempt(partial(read_range, url, start, stop))
        )


def open_data(file: str) -> BinaryIO:
    """A file of a data set, buffered. Raises OSError, MachineError."""
    if not is_remote(file):
        return open_regular(file)
    return cast(BinaryIO, io.BufferedReader(RemoteFile(file), _AHEAD_BYTES))
