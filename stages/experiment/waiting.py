"""Where cells come from: those that are planned, and what a searcher proposes.

One that another process trains is not begun, but waited for.
"""

import logging
import time
from collections.abc import Iterable, Iterator
from typing import Protocol

from egapipe.stages.experiment.cells import Planned

LOOK_SECONDS = 2.0
"""Between two looks whether somebody else has come to an end."""
_log = logging.getLogger(__name__)


class Source(Protocol):
    """Where cells come from: a list, or a searcher that learns from those that are over."""

    @property
    def empty(self) -> bool:
        """Whether no cell comes any more."""

    def next(self) -> Planned | None:
        """The next cell, which is in the record already; None where there is none now."""

    def over(self, number: int, epoch: int, value: float | None) -> None:
        """A cell is over. epoch: that it came to. value: of the metric; None: it has failed."""


class Waiting:
    """Cells that are all planned, in the order of the plan, but those last that another process
    trains."""

    def __init__(self, cells: Iterable[Planned]) -> None:
        self._cells, self._told = list(cells), set[int]()

    @property
    def empty(self) -> bool:
        """Whether none is left."""
        return not self._cells

    def next(self) -> Planned | None:
        """The first one that nobody trains; None if there is none now."""
        free = next((cell for cell in self._cells if not cell.run.in_use()), None)
        if free is not None:
            self._cells.remove(free)
        elif self._cells:
            self._tell(self._cells[0])
        return free

    def over(self, number: int, epoch: int, value: float | None) -> None:
        """Nothing follows from it."""

    def put_back(self, cell: Planned) -> None:
        """Somebody else has begun to train a cell after it was taken."""
        self._cells.append(cell)

    def _tell(self, cell: Planned) -> None:
        if cell.number not in self._told:
            self._told.add(cell.number)
            _log.warning("%s is trained by another process: it is waited for", cell.run.where)


def every_cell(source: Source) -> Iterator[Planned]:
    """The cells of a source as they become free."""
    while not source.empty:
        cell = source.next()
        if cell is None:
            time.sleep(LOOK_SECONDS)
        else:
            yield cell
