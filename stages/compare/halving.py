"""Successive halving: which variants go on after a look, a pure function of their values."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

from egapipe.pipeline.config.compare import Halving
from egapipe.pipeline.results.experiment import Experiment, Setting

Values = Mapping[int, float]
"""Seed -> value at the look."""


def looks(halving: Halving | None, epochs: int) -> list[int]:
    """The epochs after which is looked, in their order: none is the last one."""
    if halving is None:
        return []
    found, at = [], float(halving.grace_epochs)
    while round(at) < epochs:
        found.append(round(at))
        at = max(at + 1, at * halving.reduction)
    return found


def dropped(
    halving: Halving, experiment: Experiment, values: Mapping[str, Values]
) -> list[Setting]:
    """The settings that end at a look: of each group all but the best one in `reduction`.

    values: by name of the settings that have come to the look. The baseline goes on in any case,
    and so does whatever is as good as the last one that is kept.
    """
    found: list[Setting] = []
    for group in experiment.groups.values():
        there = [s for s in group if s.name in values and s.label != experiment.baseline]
        found += _worst(there, values, halving.reduction, experiment.mode)
    return found


def _worst(
    settings: Sequence[Setting], values: Mapping[str, Values], reduction: float, mode: str
) -> Iterable[Setting]:
    if not settings:
        return []
    sign = 1 if mode == "max" else -1
    scores = [
        sign * statistics.fmean(values[s.name].values()) if values[s.name] else -math.inf
        for s in settings
    ]
    keep = sorted(scores, reverse=True)[: math.ceil(len(settings) / reduction)]
    return [s for s, score in zip(settings, scores, strict=True) if score < keep[-1]]
