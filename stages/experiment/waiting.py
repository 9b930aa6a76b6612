"""Cells that wait to be trained; one that another process trains is not begun, but waited for."""

import logging
from collections.abc import Iterable

from egapipe.stages.experiment.cells import Planned

LOOK_SECONDS = 2.0
"""Between two looks whether somebody else has come to an end."""
_log = logging.getLogger(__name__)


class Waiting:
    """Cells in the order of the plan, but those last that another process trains."""

    def __init__(self, cells: Iterable[Planned]) -> None:
        self._cells, self._told = list(cells), set[int]()

    @property
    def empty(self) -> bool:
        """Whether none is left."""
        return not self._cells

    def take(self) -> Planned | None:
        """The first one that nobody trains; None if there is none now."""
        free = next((cell for cell in self._cells if not cell.run.in_use()), None)
        if free is not None:
            self._cells.remove(free)
        elif self._cells:
            self._tell(self._cells[0])
        return free

    def put_back(self, cell: Planned) -> None:
        """Somebody else has begun to train a cell after it was taken."""
        self._cells.append(cell)

    def _tell(self, cell: Planned) -> None:
        if cell.number not in self._told:
            self._told.add(cell.number)
            _log.warning("%s is trained by another process: it is waited for", cell.run.where)
