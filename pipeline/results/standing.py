"""How the settings of an experiment stand: means over seeds, paired differences, what separates."""

import math
import statistics
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from egapipe.pipeline.mathematics.significance import half_width, holm, p_value
from egapipe.pipeline.results.experiment import Experiment, Setting


@dataclass(frozen=True)
class Standing:
    """A setting over the seeds whose cells are done.

    values: seed -> the experiment's metric. gains: differences to the baseline with the same seed.
    seconds: mean of the trainings. confidence: of the interval. p: of gains this far from 0 if
    there were none, Student's t times what Holm's correction over the group makes of it.
    separates: whether the gain differs from 0 at that level, after the correction. Numbers are NaN
    where there is nothing, or one seed says nothing.
    """

    setting: Setting
    values: Mapping[int, float]
    gains: tuple[float, ...]
    seconds: float
    confidence: float
    p: float = math.nan
    separates: bool = False

    @property
    def n(self) -> int:
        """Trainings that are done and have a value."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """Of the values."""
        return statistics.fmean(self.values.values()) if self.values else math.nan

    @property
    def std(self) -> float:
        """Of the values."""
        return statistics.stdev(self.values.values()) if self.n > 1 else math.nan

    @property
    def pairs(self) -> int:
        """Seeds that the baseline has too."""
        return len(self.gains)

    @property
    def gain(self) -> float:
        """Mean difference to the baseline."""
        return statistics.fmean(self.gains) if self.gains else math.nan

    @property
    def low(self) -> float:
        """Lower end of the gain's interval."""
        return self.gain - half_width(self.gains, self.confidence)

    @property
    def high(self) -> float:
        """Upper end of the gain's interval."""
        return self.gain + half_width(self.gains, self.confidence)


def standings(experiment: Experiment, without: Collection[int] = ()) -> list[Standing]:
    """Of every setting, in order. without: numbers of cells that do not count."""
    by_name = {s.name: _standing(experiment, s, without) for s in experiment.settings}
    for settings in experiment.groups.values():
        group = [by_name[setting.name] for setting in settings]
        known = [standing for standing in group if not math.isnan(standing.p)]
        for standing, p in zip(known, holm([standing.p for standing in known]), strict=True):
            separates = p <= 1 - experiment.confidence
            by_name[standing.setting.name] = replace(standing, p=p, separates=separates)
    return list(by_name.values())


def leading(experiment: Experiment, found: Collection[Standing]) -> Standing | None:
    """The best of settings: of those with most seeds the best mean; None if none has a value."""
    sign = 1 if experiment.mode == "max" else -1
    having = [standing for standing in found if standing.n]
    return max(having, key=lambda s: (s.n, sign * s.mean), default=None)


def _standing(experiment: Experiment, setting: Setting, without: Collection[int]) -> Standing:
    values = _values(experiment, setting, without)
    baseline = experiment.baseline_of(setting)
    theirs = {} if baseline is None else _values(experiment, baseline, without)
    gains = tuple(value - theirs[seed] for seed, value in values.items() if seed in theirs)
    seconds = [c.seconds for c in experiment.cells_of(setting) if c.seconds and c.state == "done"]
    return Standing(
        setting=setting,
        values=values,
        gains=gains,
        seconds=statistics.fmean(seconds) if seconds else math.nan,
        confidence=experiment.confidence,
        p=p_value(gains),
    )


def _values(experiment: Experiment, setting: Setting, without: Collection[int]) -> dict[int, float]:
    cells = experiment.cells_of(setting)
    return {
        cell.seed: cell.value
        for cell in cells
        if cell.state == "done" and cell.value is not None and cell.number not in without
    }
