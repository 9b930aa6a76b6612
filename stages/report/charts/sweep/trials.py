"""The trials of a sweep as figures draw them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from egapipe.pipeline.results.experiment import Cell, Experiment, Setting, State
from egapipe.pipeline.results.labels import short_name
from egapipe.pipeline.terminal.text import visible
from egapipe.stages.report.charts.colours import BLUE, GREEN, GREY, RED
from egapipe.stages.report.charts.series import Series

LAMBDA = ".weight"
_COLOURS: dict[State, str] = {
    "done": BLUE,
    "stopped": GREY,
    "running": GREEN,
    "failed": RED,
    "planned": GREY,
}
SEED = "distill.seed"


@dataclass(frozen=True)
class Trial:
    """A cell of a sweep with its setting. place: its number in the series of all trials."""

    cell: Cell
    setting: Setting
    place: int

    @property
    def changes(self) -> Mapping[str, Any]:
        """What it changes, its seed apart."""
        return self.setting.changes

    @property
    def value(self) -> float:
        """The metric, of a trial that has one."""
        if self.cell.value is None:
            raise ValueError(f"trial {self.cell.number} has no value")
        return self.cell.value

    def row(self) -> dict[str, Any]:
        """What every figure has of it."""
        return {
            "series": self.place,
            "value": self.cell.value,
            "state": self.cell.state,
            "seed": self.cell.seed,
            "epochs": f"{self.cell.epoch} of {self.cell.epochs}",
        }


def trials_of(experiment: Experiment) -> list[Trial]:
    """All of a sweep's trials, in their order."""
    return [
        Trial(cell, experiment.setting(cell.setting), place)
        for place, cell in enumerate(experiment.cells)
    ]


def series_of(trials: Sequence[Trial]) -> Series:
    """Trials as series: many, so that a table isolates them and they have no colours."""
    names = (f"{trial.cell.number}: {trial.setting.label}" for trial in trials)
    return Series(tuple(names), "trials", coloured=False)


def trial_rows(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Rows of trials that have a value. `drawn` is where a point of it stands: one that is stopped
    early would press those that matter together, and stands at their edge."""
    done = [trial.value for trial in trials if trial.cell.state == "done"]
    low, high = (min(done), max(done)) if done else (-math.inf, math.inf)
    room = 0.12 * ((high - low) or abs(high)) if done else 0.0
    return [
        {**trial.row(), "drawn": min(max(trial.value, low - room), high + room)} for trial in trials
    ]


def state_colour(trials: Sequence[Trial]) -> Any:
    """The encoding of a colour by state, with a legend where there are several."""
    states = [state for state in _COLOURS if any(t.cell.state == state for t in trials)]
    scale = alt.Scale(domain=states, range=[_COLOURS[state] for state in states])
    legend = alt.Legend(title=None, orient="top") if len(states) > 1 else None
    return alt.Color("state:N", scale=scale, legend=legend)


def axis_name(path: str) -> str:
    """The paper's name for the weight of an objective, and ours."""
    name = visible(short_name(path))
    return f"lambda ({name})" if name.endswith(LAMBDA) else name
