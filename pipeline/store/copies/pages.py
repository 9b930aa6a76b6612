"""The pages of a mapped file: which of them are in memory, and reading others before they are used.

A page that is touched and not there is read alone, while its reader waits, or with megabytes
around it that nobody asked for. Who knows what comes next says so here: it is sorted and joined to
stretches, and the system reads many of them at a time.
"""

import ctypes
import mmap
import os
import weakref
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from egapipe.pipeline.locations.remote import at_once
from egapipe.pipeline.machine.memory import free_memory

Ints = npt.NDArray[np.int64]

PAGE = mmap.PAGESIZE
# Between two entries: so much costs less time to read along than another request does. Of a file
# that stays in memory, what is read along is used later.
_GAP_BYTES = 16 << 10
_KEPT_GAP_BYTES = 256 << 10
# A request waits for its turn in the system's queue: several threads wait at a time.
_THREADS = 4
# The system reads no more at once than its window, which is 128 KiB where nobody has changed it.
_ASKED_BYTES = 128 << 10
SHARE = 0.5
"""A file that takes more of the free memory is not expected to stay in it."""
_SAMPLED = 64


class Pages:
    """The pages under an array that is mapped from a file.

    sparse: whether the file is larger than what memory may hold of it, so that a page that is
    touched is read without those around it. entry_pages: that an entry takes, roughly.
    """

    def __init__(self, file: int, mapping: mmap.mmap, values: npt.NDArray[np.generic]) -> None:
        """file: a descriptor of what is mapped. values: [n, D], in it; entry i is its i-th row."""
        self._file = os.dup(file)
        weakref.finalize(self, os.close, self._file)
        self._length = len(mapping)
        self._entry_bytes = max(1, values.strides[0]) if values.size else 1
        self._address = np.frombuffer(mapping, np.uint8).ctypes.data
        self._offset = values.ctypes.data - self._address
        self.entry_pages = -(-self._entry_bytes // PAGE)
        self.sparse = len(mapping) > SHARE * free_memory()
        if self.sparse and hasattr(mmap, "MADV_RANDOM"):
            mapping.madvise(mmap.MADV_RANDOM)

    def missing(self, entries: Ints) -> bool:
        """Whether some of a sample of these entries are not in memory; False where nobody knows."""
        step = max(1, len(entries) // _SAMPLED)
        return not all(self._is_resident(int(entry)) for entry in entries[::step])

    def read(self, entries: Ints) -> None:
        """Ask the system for the pages of some entries; it reads them while this returns."""
        gap = _GAP_BYTES if self.sparse else _KEPT_GAP_BYTES
        found = stretches(entries, self._entry_bytes, gap, self._offset)
        if len(found) <= _SAMPLED:
            self._ask_all(found)
            return
        parts = [
            found[len(found) * i // _THREADS : len(found) * (i + 1) // _THREADS]
            for i in range(_THREADS)
        ]
        at_once(self._ask_all, parts)

    def read_all(self) -> None:
        """Ask the system for the whole file, where memory may hold it."""
        if not self.sparse:
            self._ask(0, self._length)

    def _ask_all(self, parts: Sequence[tuple[int, int]]) -> None:
        for start, stop in parts:
            self._ask(start, stop)

    def _ask(self, start: int, stop: int) -> None:
        if not hasattr(os, "posix_fadvise"):
            return
        for place in range(start, stop, _ASKED_BYTES):
            length = min(_ASKED_BYTES, stop - place)
            os.posix_fadvise(self._file, place, length, os.POSIX_FADV_WILLNEED)

    def _is_resident(self, entry: int) -> bool:
        if _mincore is None:
            return True
        place = (self._offset + entry * self._entry_bytes) // PAGE * PAGE
        found = ctypes.c_ubyte()
        failed = _mincore(
            ctypes.c_void_p(self._address + place), ctypes.c_size_t(1), ctypes.byref(found)
        )
        return bool(failed) or bool(found.value & 1)


def stretches(entries: Ints, entry_bytes: int, gap: int, offset: int = 0) -> list[tuple[int, int]]:
    """Byte ranges [start, stop) of whole pages that hold some entries, ascending and apart.

    entries: int64 [n], in any order. gap: bytes between two of them that are read along. offset:
    of entry 0.
    """
    if len(entries) == 0:
        return []
    places = np.unique(entries) * entry_bytes + offset
    starts = places // PAGE * PAGE
    stops = -(-(places + entry_bytes) // PAGE) * PAGE
    breaks = np.flatnonzero(starts[1:] - stops[:-1] > gap)
    first, last = np.append(0, breaks + 1), np.append(breaks, len(places) - 1)
    return list(zip(starts[first].tolist(), stops[last].tolist(), strict=True))


def _found_mincore() -> "ctypes._FuncPointer | None":
    try:
        return ctypes.CDLL(None).mincore
    except (OSError, AttributeError):
        return None


_mincore = _found_mincore()
