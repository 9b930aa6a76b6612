"""An experiment on a progress display: epochs of all cells, which of them are done, what failed."""

from collections.abc import Mapping

from egapipe.pipeline.results.experiment import Cell, Experiment
from egapipe.pipeline.terminal.progress import Progress


class Shown:
    """Follows an experiment on a display."""

    def __init__(self, bar: Progress, experiment: Experiment) -> None:
        self._bar, self._planned = bar, experiment.planned
        self._cells = {cell.number: cell for cell in experiment.cells}
        self._sign = 1 if experiment.mode == "max" else -1
        self._update()

    def changed(self, experiment: Experiment, cell: Cell) -> None:
        """A cell has another state."""
        self._planned = experiment.planned
        if cell.state == "failed":
            setting = experiment.setting(cell.setting)
            self._bar.note(f"{setting.name} seed {cell.seed} failed: {cell.error}")
        self._set(cell)

    def epoch(self, cell: Cell, epoch: int, metrics: Mapping[str, float]) -> None:
        """An epoch of a cell is done."""
        self._set(cell)

    def _set(self, cell: Cell) -> None:
        self._cells[cell.number] = cell
        self._update()

    def _update(self) -> None:
        cells = self._cells.values()
        # What a cell that ended early leaves out is done as well.
        epochs = sum(cell.epochs if cell.over else cell.epoch for cell in cells)
        over, failed = (sum(c.over for c in cells), sum(c.state == "failed" for c in cells))
        running = sum(cell.state == "running" for cell in cells)
        done = [cell.value for cell in cells if cell.state == "done" and cell.value is not None]
        best = {"best": float(f"{max(done, key=lambda v: self._sign * v):.4g}")} if done else {}
        broken = {"failed": failed} if failed else {}
        self._bar.update(
            epochs,
            cell=f"{min(over + running, self._planned)} of {self._planned}",
            **broken,
            **best,
        )
