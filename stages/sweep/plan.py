"""The trials of a sweep: a pure function of the configuration, checked before any starts."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from egapipe.pipeline.config import Config
from egapipe.pipeline.config.sweep import Dimension, direction
from egapipe.pipeline.errors import UsageError
from egapipe.stages.experiment import cells
from egapipe.stages.experiment.cells import SAME_FOR_ALL, SEED, Changes, named_changes
from egapipe.stages.sweep.space import draw, ends, every

Space = Mapping[str, Dimension]

STAGE = "distill."
# Draws that are tried before a searcher, whose own nobody knows yet.
_TRIED = 64


@dataclass(frozen=True)
class Trial:
    """One training: its settings by dotted path, and the configuration that they make."""

    changes: Changes
    config: Config


def plan(config: Config, first: Sequence[Changes] = ()) -> list[Trial]:
    """The trials of `random` and `grid`, in their order; examples of those of `optuna`.

    first: settings that come before all others. Those of a setting, one a seed, follow each other.
    The first trials of a random sweep stay the same when `samples` grows; equal trials are planned
    once. Raises UsageError for a path or value that the configuration refuses, a path that is no
    setting of stage two, and an empty space.
    """
    space, sweep = config.sweep.space, config.sweep
    if not space:
        raise UsageError(
            "sweep.space is empty: name a setting and its values, e.g. "
            "--set 'sweep.space={distill.objective.ega.weight: {loguniform: [0.05, 5]}}'"
        )
    if direction(sweep.metric) not in (None, sweep.mode):
        raise UsageError(
            f"sweep.mode is {sweep.mode}, so the best of {sweep.metric} would be the worst: leave"
            " it out, the metric says which way is better"
        )
    for path, dimension in space.items():
        _check_path(config, path, dimension)
    if sweep.seeds is not None and SEED in space:
        raise UsageError(f"sweep.space has {SEED}, and sweep.seeds is given: leave one of them out")
    if sweep.search == "grid":
        drawn = combinations({path: every(path, d) for path, d in space.items()})
    elif sweep.search == "random":
        drawn = _random(space, sweep.samples, sweep.search_seed)
    else:
        _check_no_grid(space)
        drawn = _random(space, max(sweep.samples, _TRIED), sweep.search_seed)
    settings = _distinct(assemble(config, values) for values in itertools.chain(first, drawn))
    return [trial for setting in settings for trial in seeded(config, setting)]


def seeded(config: Config, setting: Trial) -> list[Trial]:
    """The trials of a setting: one a seed of `sweep.seeds`."""
    if config.sweep.seeds is None:
        return [setting]
    seeds = [{**setting.changes, SEED: seed} for seed in config.sweep.seeds]
    return [Trial(changes, changed(config, changes)) for changes in seeds]


def assemble(config: Config, values: Mapping[str, Any]) -> Trial:
    """The trial of some values, without those whose `when` the trial's objective does not meet.

    Raises UsageError if the configuration refuses them.
    """
    conditional = {path for path, d in config.sweep.space.items() if d.objectives}
    kept = present(config, {p: value for p, value in values.items() if p not in conditional})
    changes = {p: value for p, value in values.items() if p not in conditional or p in kept}
    return Trial(changes, changed(config, changes))


def present(config: Config, values: Mapping[str, Any]) -> list[str]:
    """The settings with a `when` that a trial of these values of the others has too."""
    objectives = set(changed(config, values).distill.objective.model_dump(exclude_none=True))
    space = config.sweep.space
    return [path for path, d in space.items() if objectives & set(d.objectives)]


def changed(config: Config, changes: Mapping[str, Any]) -> Config:
    """The configuration with changes by dotted path. Raises UsageError if it refuses them."""
    shown = named_changes(changes) or "nothing"
    return cells.changed(config, changes, f"{config.name}, sweep.space with {shown}")


def combinations(values: Mapping[str, Sequence[Any]]) -> Iterator[Changes]:
    """Each value with each value of the others; the last setting changes first."""
    for chosen in itertools.product(*values.values()):
        yield dict(zip(values, chosen, strict=True))


def _random(space: Space, samples: int, seed: int) -> Iterator[Changes]:
    grids = {path: every(path, d) for path, d in space.items() if d.grid is not None}
    for sample in range(samples):
        rng = np.random.default_rng((seed, sample))
        drawn = {path: draw(d, rng) for path, d in space.items() if path not in grids}
        for listed in combinations(grids):
            yield {path: {**drawn, **listed}[path] for path in space}


def _distinct(trials: Iterator[Trial]) -> list[Trial]:
    known = {json.dumps(trial.changes, sort_keys=True): trial for trial in trials}
    return list(known.values())


def _check_path(config: Config, path: str, dimension: Dimension) -> None:
    for value in ends(dimension):
        changed(config, {path: value})
    if not path.startswith(STAGE):
        raise UsageError(
            f"sweep.space: {path} is no setting of stage two, and all trials of a sweep learn from"
            f" one store: paths begin with {STAGE}, e.g. distill.lr"
        )
    if path.removeprefix(STAGE) in SAME_FOR_ALL:
        raise UsageError(f"sweep.space: {path} is the same for all trials: set it itself")


def _check_no_grid(space: Space) -> None:
    for path, dimension in space.items():
        if dimension.grid is not None:
            raise UsageError(
                f"sweep.space.{path}: optuna picks values, a grid takes them all: "
                "write choice, or set sweep.search to random"
            )
