"""How long an experiment still takes, by the epochs that this command has seen."""

import time
from collections.abc import Callable

from egapipe.pipeline.results.experiment import Cell, Experiment


class Pace:
    """Seconds an epoch of each cell, and what is left of them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: dict[int, tuple[int, float]] = {}
        self._last: dict[int, tuple[int, float]] = {}

    def see(self, cell: Cell) -> None:
        """A cell is at an epoch now; a cell that begins is seen too."""
        now = self._clock()
        self._first.setdefault(cell.number, (cell.epoch, now))
        if self._last.get(cell.number, (-1, 0.0))[0] != cell.epoch:
            self._last[cell.number] = cell.epoch, now

    def of(self, cell: Cell) -> float | None:
        """Seconds until a running cell's last epoch; None while nothing is known."""
        if cell.state != "running":
            return None
        rate = self._rate([cell.number]) or self._rate(list(self._last))
        return None if rate is None else rate * (cell.epochs - cell.epoch)

    def left(self, experiment: Experiment) -> float | None:
        """Seconds until the last cell is over, if none ends early; None while nothing is known."""
        rate = self._rate(list(self._last))
        if rate is None or not experiment.cells:
            return None
        epochs = [c.epochs - c.epoch for c in experiment.cells if not c.over]
        mean = sum(c.epochs for c in experiment.cells) / len(experiment.cells)
        unseen = max(0, experiment.planned - len(experiment.cells))
        at_once = max(1, sum(c.state == "running" for c in experiment.cells))
        # The longest of those that are under way ends when it ends.
        return rate * max((sum(epochs) + unseen * mean) / at_once, *epochs, 0.0)

    def _rate(self, numbers: list[int]) -> float | None:
        """Seconds an epoch of these cells."""
        pairs = [(self._first[n], self._last[n]) for n in numbers if n in self._last]
        epochs = sum(last[0] - first[0] for first, last in pairs)
        seconds = sum(last[1] - first[1] for first, last in pairs)
        return seconds / epochs if epochs > 0 else None
