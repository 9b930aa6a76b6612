"""What an earlier sweep knows: results that hold here too, and settings to begin with."""

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from egapipe.pipeline.config import Config
from egapipe.pipeline.config.sweep import Dimension
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.results.experiment import Cell, Recorded, Setting, read_experiment
from egapipe.pipeline.results.learned import require_current
from egapipe.pipeline.results.runs import RunFolder, run_identity
from egapipe.stages.experiment.cells import SEED, Changes, without_seed
from egapipe.stages.sweep.plan import changed

# Settings to begin with: so many of the best.
_FIRST = 5


@dataclass(frozen=True)
class Known:
    """A setting whose value holds in this sweep."""

    changes: Changes
    value: float


@dataclass(frozen=True)
class Earlier:
    """An earlier sweep, seen from a new one."""

    config: Config
    recorded: Recorded

    @classmethod
    def of(cls, config: Config) -> "Earlier | None":
        """That of `sweep.warm_start`, if there is one. Raises UsageError if it is no sweep."""
        place = config.sweep.warm_start
        if place is None:
            return None
        recorded = read_experiment(place)
        if recorded.experiment.kind != "sweep":
            raise UsageError(f"sweep.warm_start is {place}, a comparison: name a sweep's folder")
        return cls(config, recorded)

    def run_of(self, trial: Config) -> RunFolder | None:
        """The finished run that this very training would make; None if it was not made.

        Raises UsageError if it has learned from other features than those that are there now.
        """
        run = self._runs.get(_identity(trial))
        if run is not None:
            require_current(run, trial)
        return run

    def for_searcher(self) -> tuple[list[Known], list[Changes]]:
        """What a searcher is told before it proposes anything: results, and what to begin with."""
        return list(self.known()), self.first()

    def known(self) -> Iterator[Known]:
        """Settings that a search here may learn from, with their mean over seeds."""
        for setting in self._within():
            cells = [c for c in self._done(setting) if self._same(setting, c)]
            if cells and len(cells) == len(self.recorded.experiment.cells_of(setting)):
                values = [cell.value for cell in cells if cell.value is not None]
                yield Known(dict(setting.changes), statistics.fmean(values))

    def first(self) -> list[Changes]:
        """The best settings of those whose values do not hold here: to begin with."""
        means = {}
        for setting in self._within():
            cells = self._done(setting)
            if cells and not any(self._same(setting, cell) for cell in cells):
                means[setting.name] = statistics.fmean(c.value or 0.0 for c in cells)
        best = sorted(means, key=means.__getitem__, reverse=self.recorded.experiment.mode == "max")
        return [dict(self.recorded.experiment.setting(name).changes) for name in best[:_FIRST]]

    def _done(self, setting: Setting) -> list[Cell]:
        cells = self.recorded.experiment.cells_of(setting)
        return [cell for cell in cells if cell.state == "done" and cell.value is not None]

    def _same(self, setting: Setting, cell: Cell) -> bool:
        """Whether a training here would be this one, and is measured alike."""
        if self.recorded.experiment.metric != self.config.sweep.metric:
            return False
        trial = changed(self.config, {**setting.changes, SEED: cell.seed})
        return _identity(trial) in self._runs

    def _within(self) -> Iterator[Setting]:
        """Settings that are in the space of the new sweep."""
        space = self.config.sweep.space
        for setting in self.recorded.experiment.settings:
            own = without_seed(setting.changes)
            needed = {path for path, dimension in space.items() if not dimension.objectives}
            if needed - {SEED} <= set(own) <= set(space) and all(
                contains(space[path], value) for path, value in own.items()
            ):
                yield setting

    @cached_property
    def _runs(self) -> Mapping[str, RunFolder]:
        """Identity -> run folder, of the trainings that are done."""
        found = {}
        for cell in self.recorded.experiment.cells:
            run = self.recorded.run(cell) if cell.state == "done" else None
            if run is not None and run.finished:
                found[_identity(run.config())] = run
        return found


def _identity(config: Config) -> str:
    """What is learned, wherever: a trial records the device that its slot had."""
    anywhere = config.distill.model_copy(update={"device": "auto"})
    return run_identity(config.model_copy(update={"distill": anywhere}))


def contains(dimension: Dimension, value: Any) -> bool:
    """Whether a setting may have this value."""
    between = dimension.uniform or dimension.loguniform or dimension.randint
    if between is None:
        return value in (dimension.choice or dimension.grid or ())
    return isinstance(value, int | float) and between[0] <= value <= between[1]
