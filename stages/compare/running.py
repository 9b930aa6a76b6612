"""The cells of a comparison while they run: one by one or together, with looks between."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from egapipe.pipeline.config import Config
from egapipe.pipeline.machine.cluster import cluster_nodes, ray_session
from egapipe.pipeline.results.experiment import Cell, Experiment
from egapipe.pipeline.results.learned import require_one_source
from egapipe.pipeline.results.runs import RunFolder
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.pipeline.terminal.progress import OpenProgress
from egapipe.stages.compare.folder import ComparisonFolder
from egapipe.stages.compare.halving import dropped, looks
from egapipe.stages.experiment.cells import Planned
from egapipe.stages.experiment.inline import Inline
from egapipe.stages.experiment.ledger import Ledger, Listener
from egapipe.stages.experiment.shown import Shown
from egapipe.stages.experiment.slots import plan_slots
from egapipe.stages.experiment.training import arrived
from egapipe.stages.experiment.trial import ERROR
from egapipe.stages.experiment.waiting import Waiting
from egapipe.stages.track.tracker import tracked_experiment

Watch = Callable[[Experiment], None]
RunCells = Callable[[Sequence[Planned], int | None], None]


def nobody(experiment: Experiment) -> None:
    """Is told, and does nothing."""
    del experiment


class Running:
    """A comparison that runs."""

    def __init__(
        self,
        config: Config,
        folder: ComparisonFolder,
        experiment: Experiment,
        cells: Sequence[Planned],
        measured: str,
    ) -> None:
        """cells: all of them. measured: what a run's summary calls the accuracy."""
        self._config, self._folder, self._cells = config, folder, cells
        self._measured = measured
        self._began = experiment
        self._ledger = Ledger(folder, experiment, self._value, [_Tables(self)])

    def run(self, progress: OpenProgress, watch: Watch) -> Experiment:
        """Train what is left; the record when nothing runs any more."""
        config, folder = self._config, self._folder
        ledger = self._ledger
        with (
            tracked_experiment(config.track, config, folder, ledger.experiment) as trackers,
            ledger.alive(),
        ):
            for tracker in trackers:
                ledger.listen(tracker)
            # Finished ones first: what is known is in the tables before hours of training.
            for cell in self._cells:
                if cell.run.finished:
                    ledger.finished(cell.number, cell.run)
            left = self._left()
            self.write()
            if config.compare.max_concurrent > 1 and len(left) > 1:
                self._together(left, progress, watch)
            elif left:
                self._rounds(left, Inline(ledger, progress).run)
        self.write()
        return ledger.experiment

    def write(self) -> None:
        """Write the tables of what is done."""
        experiment = self._ledger.experiment
        done = {cell.run: self._run(cell) for cell in experiment.cells if cell.state == "done"}
        require_one_source({run.where: run for run in done.values()})
        tops = [run.summary().get("teacher_top1") for run in done.values()]
        known = [top for top in tops if top is not None]
        teacher = statistics.fmean(known) if known else None
        if teacher != experiment.teacher:
            self._ledger.set(teacher=teacher)
        self._folder.write_tables(self._ledger.experiment)

    def _run(self, cell: Cell) -> RunFolder:
        return self._cells[cell.number].run

    def _value(self, run: RunFolder) -> float | None:
        value = run.summary().get(self._measured)
        return None if value is None else float(value)

    def _left(self) -> list[Planned]:
        return [c for c in self._cells if self._ledger.cell(c.number).state == "planned"]

    def _rounds(self, left: Sequence[Planned], run: RunCells) -> None:
        """Run cells up to each look of the halving, and what is left of them to the end."""
        halving = self._config.compare.halving
        for until in looks(halving, max(cell.config.distill.epochs for cell in left)):
            run([cell for cell in self._left() if not arrived(cell.run, until)], until)
            if halving is not None:
                self._drop(dropped(halving, self._ledger.experiment, self._at(until)))
        run(self._left(), None)

    def _at(self, until: int) -> dict[str, dict[int, float]]:
        """Setting -> seed -> accuracy after so many epochs, or the last ones before."""
        split = "test" if self._config.dataset.validation is None else "validation"
        found: dict[str, dict[int, float]] = {}
        for cell in self._ledger.experiment.cells:
            if cell.state not in ("planned", "done"):
                continue
            lines = read_metrics(self._run(cell))[:until]
            values = [line[f"{split}/top1"] for line in lines if f"{split}/top1" in line]
            found.setdefault(cell.setting, {}).update({cell.seed: values[-1]} if values else {})
        return found

    def _drop(self, settings: Sequence[Any]) -> None:
        names = {setting.name for setting in settings}
        for cell in self._ledger.experiment.cells:
            if cell.setting in names and cell.state == "planned":
                self._ledger.change(cell.number, state="stopped")

    def _together(self, left: Sequence[Planned], progress: OpenProgress, watch: Watch) -> None:
        config, ledger = self._config, self._ledger
        most = config.compare.max_concurrent
        total = sum(cell.config.distill.epochs for cell in left)
        with ray_session(config.cluster), progress("compare", total, unit="epochs") as bar:
            # Ray is imported when its session is there: it reads its environment then.
            from egapipe.stages.experiment.limited import ToTheEnd
            from egapipe.stages.experiment.on_tune import run_on_tune
            from egapipe.stages.experiment.trial import Shared

            slots = plan_slots(config, cluster_nodes(), most)
            ledger.listen(Shown(bar, ledger.experiment))

            def run(cells: Sequence[Planned], until: int | None) -> None:
                for cell in cells:
                    cell.run.discard(ERROR)
                if cells:
                    run_on_tune(
                        Shared(config.model_dump(mode="json"), slots, None, None, until),
                        Waiting(cells),
                        ledger,
                        ToTheEnd(slots.concurrent),
                        most=len(cells),
                        max_failures=config.sweep.max_failures,
                        watch=lambda: watch(ledger.experiment),
                    )

            self._rounds(left, run)


class _Tables(Listener):
    """Writes the tables anew when a cell is over."""

    def __init__(self, running: Running) -> None:
        self._running = running

    def changed(self, experiment: Experiment, cell: Cell) -> None:
        """A cell has another state."""
        if cell.over:
            self._running.write()

    def epoch(self, cell: Cell, epoch: int, metrics: Mapping[str, float]) -> None:
        """Nothing is in the tables of a cell that is under way."""
