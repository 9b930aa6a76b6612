"""How many pixels a process decodes at once: one image of the largest size, or many small ones."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Pixels:
    """Pixels in flight, over all threads of this process.

    A thread that reads a row does so in a `row` block; it waits in `claim` until its image fits
    beside those of the others. Elsewhere `claim` does nothing.
    """

    def __init__(self, limit: int) -> None:
        """limit: pixels. An image alone is never too large."""
        self._limit = limit
        self._changed = threading.Condition()
        self._claimed: dict[int, int] = {}
        """Thread in a `row` block -> pixels of its image."""

    @contextmanager
    def row(self) -> Iterator[None]:
        """What is claimed in the block is in flight until its end."""
        thread = threading.get_ident()
        with self._changed:
            self._claimed[thread] = 0
        try:
            yield
        finally:
            with self._changed:
                del self._claimed[thread]
                self._changed.notify_all()

    def claim(self, count: int) -> None:
        """Wait until an image of so many pixels may be decoded; at a second try of it, anew."""
        thread = threading.get_ident()
        with self._changed:
            if thread not in self._claimed:
                return
            self._claimed[thread] = 0
            self._changed.wait_for(lambda: not self.count or self.count + count <= self._limit)
            self._claimed[thread] = count

    @property
    def count(self) -> int:
        """Pixels in flight at this moment."""
        return sum(self._claimed.values())
