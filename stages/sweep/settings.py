"""Trials by their settings: a seed is a repetition, not a setting.

The best of many seeds of one setting is luck, so settings are compared by their means.
"""

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from egapipe.pipeline.mathematics.significance import holm, p_value
from egapipe.stages.experiment.cells import SEED

_LEVEL = 0.05


class Ended(Protocol):
    """What is asked of a trial."""

    @property
    def number(self) -> int:
        """From 0."""

    @property
    def changes(self) -> Mapping[str, Any]:
        """Its settings by dotted path."""

    @property
    def status(self) -> str:
        """`finished` where it reached its last epoch."""

    @property
    def value(self) -> float | None:
        """The metric after its last epoch."""


T = TypeVar("T", bound=Ended)


@dataclass(frozen=True)
class Group(Generic[T]):
    """The trials of one setting that reached their last epoch, by number."""

    changes: dict[str, Any]
    """Settings by dotted path, without the seed."""
    trials: list[T]
    planned: int
    """All trials of the setting."""

    @property
    def values(self) -> dict[Any, float]:
        """Seed -> value."""
        return {t.changes.get(SEED): t.value for t in self.trials if t.value is not None}

    @property
    def mean(self) -> float:
        """Over its trials."""
        return statistics.fmean(self.values.values())

    @property
    def std(self) -> float:
        """Over its trials; NaN for one."""
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else math.nan


def by_settings(trials: Iterable[T], mode: str) -> list[Group[T]]:
    """The settings of which trials finished with a finite value, the best first.

    Those with more of them come first: of a setting whose poor seeds were ended early, what is left
    looks better than it is.
    """
    found: dict[str, list[T]] = {}
    for trial in sorted(trials, key=lambda trial: trial.number):
        found.setdefault(json.dumps(_settings(trial), sort_keys=True), []).append(trial)
    groups = []
    for mine in found.values():
        finished = [t for t in mine if t.status == "finished" and t.value is not None]
        finished = [t for t in finished if math.isfinite(t.value or 0.0)]
        if finished:
            groups.append(Group(_settings(mine[0]), finished, len(mine)))
    sign = -1 if mode == "max" else 1
    # Of equals the first: it was not drawn because of another.
    return sorted(groups, key=lambda group: (-len(group.trials), sign * group.mean))


def unseparated(groups: Sequence[Group[Any]]) -> int:
    """Of how many of the other settings the first one does not separate.

    By Student's t of the differences with the same seed, at 5 % after Holm's correction over all
    others. With fewer than two seeds in common nothing separates.
    """
    if not groups:
        return 0
    first, *others = (group.values for group in groups)
    pairs = [[value - first[seed] for seed, value in o.items() if seed in first] for o in others]
    known = [p for p in map(p_value, pairs) if not math.isnan(p)]
    return len(others) - sum(p <= _LEVEL for p in holm(known))


def _settings(trial: Ended) -> dict[str, Any]:
    return {path: value for path, value in trial.changes.items() if path != SEED}
