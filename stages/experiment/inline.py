"""Cells one after another, in this process."""

from collections.abc import Sequence

from egapipe.pipeline.errors import InUseError, TrainingError, one_line
from egapipe.pipeline.results.experiment import Cell
from egapipe.pipeline.terminal.progress import OpenProgress, clock
from egapipe.pipeline.terminal.text import visible
from egapipe.stages.experiment.cells import Planned
from egapipe.stages.experiment.ledger import Ledger
from egapipe.stages.experiment.pace import Pace
from egapipe.stages.experiment.training import saving_at, train
from egapipe.stages.experiment.waiting import Waiting, every_cell


class Inline:
    """Runs cells one by one, and says which of how many each is."""

    def __init__(self, ledger: Ledger, progress: OpenProgress) -> None:
        self._ledger, self._progress, self._pace = ledger, progress, Pace()

    def run(self, cells: Sequence[Planned], until: int | None = None) -> None:
        """Train cells; one that fails is recorded, and the others go on.

        Those that another process trains come last: they are waited for. until: epochs after which
        they pause.
        """
        waiting = Waiting(cells)
        for cell in every_cell(waiting):
            try:
                self._one(cell, until)
            except InUseError:
                waiting.put_back(cell)

    def _one(self, planned: Planned, until: int | None) -> None:
        ledger, number = self._ledger, planned.number
        ledger.change(number, state="running", error=None)
        self._pace.see(ledger.cell(number))

        def epoch(at: int, metrics: object) -> None:
            ledger.epoch(number, at, metrics)  # type: ignore[arg-type]
            self._pace.see(ledger.cell(number))

        config = saving_at(planned.config, until)
        title = self._title(ledger.cell(number))
        try:
            finished = train(
                config, planned.run, epoch, until=until, progress=self._progress, title=title
            )
        except InUseError:
            ledger.change(number, state="planned")
            raise
        except TrainingError as error:
            ledger.change(number, state="failed", error=one_line(error))
            return
        if finished:
            ledger.finished(number, planned.run)
        else:
            ledger.change(number, state="planned")

    def _title(self, cell: Cell) -> str:
        """`cell 4 of 9, 3:20 left: ega seed 0`."""
        experiment = self._ledger.experiment
        counts = experiment.counts
        over = counts["done"] + counts["failed"] + counts["stopped"]
        left = self._pace.left(experiment)
        time_left = "" if left is None else f", {clock(left)} left"
        name = visible(experiment.setting(cell.setting).name)
        return f"cell {over + 1} of {experiment.planned}{time_left}: {name} seed {cell.seed}"
