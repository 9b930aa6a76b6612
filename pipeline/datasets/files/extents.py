"""Where images lie inside their files: told to processes that have no list of all rows."""

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

# Those of a shard, of the next, and of the rows that were looked at when the process started.
_KEPT = 4


class Extent(NamedTuple):
    """The bytes of one image. problem: why there are none; empty where there are."""

    file: str
    offset: int
    size: int
    problem: str


@dataclass(frozen=True)
class Extents:
    """Those of some rows: a few numbers a row, and each file once.

    rows: ascending [n]. number: of the row's file among `files`. offset, size: in bytes. problems:
    row -> why it has no image.
    """

    rows: Ints
    files: Sequence[str]
    number: Ints
    offset: Ints
    size: Ints
    problems: Mapping[int, str]

    def get(self, row: int) -> Extent | None:
        """That of a row, None if it is not among them."""
        place = int(np.searchsorted(self.rows, row))
        if place == len(self.rows) or self.rows[place] != row:
            return None
        file = self.files[int(self.number[place])]
        offset, size = int(self.offset[place]), int(self.size[place])
        return Extent(file, offset, size, self.problems.get(row, ""))

    @classmethod
    def of(cls, extents: Mapping[int, Extent]) -> "Extents":
        """Those of a mapping row -> extent."""
        rows = sorted(extents)
        found = [extents[row] for row in rows]
        files = list(dict.fromkeys(one.file for one in found))
        numbers = {file: number for number, file in enumerate(files)}
        return cls(
            rows=np.array(rows, np.int64),
            files=files,
            number=np.array([numbers[one.file] for one in found], np.int64),
            offset=np.array([one.offset for one in found], np.int64),
            size=np.array([one.size for one in found], np.int64),
            problems={row: extents[row].problem for row in rows if extents[row].problem},
        )


class Learnt:
    """The extents that a process was told of last; threads may ask."""

    def __init__(self, known: Sequence[Extents] = ()) -> None:
        self._known = deque(known, _KEPT)
        self._lock = threading.Lock()

    @property
    def known(self) -> list[Extents]:
        """The oldest first."""
        with self._lock:
            return list(self._known)

    def add(self, extents: Extents) -> None:
        """Keep some beside the last ones."""
        with self._lock:
            self._known.append(extents)

    def get(self, row: int) -> Extent | None:
        """That of a row, None if nobody told it."""
        found = (extents.get(row) for extents in reversed(self.known))
        return next((extent for extent in found if extent is not None), None)
