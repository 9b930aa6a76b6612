"""A sweep's record before its trials run: what is over stays, what is left is planned."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from egapipe.pipeline.config import Config
from egapipe.pipeline.config.sweep import PbtScheduler
from egapipe.pipeline.results.experiment import (
    Cell,
    Experiment,
    Setting,
    is_experiment,
    read_experiment,
    settings_of,
)
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.stages.experiment.cells import SEED, Changes, Planned, without_seed
from egapipe.stages.sweep.folder import SweepFolder
from egapipe.stages.sweep.plan import Trial, changed
from egapipe.stages.sweep.warm import Earlier


@dataclass(frozen=True)
class Begun:
    """The record to begin with, and the trials that are to be run."""

    experiment: Experiment
    pending: list[Planned]


class _Having(NamedTuple):
    """A cell, and what it changes but for the seed."""

    changes: Changes
    cell: Cell


def begin(
    config: Config,
    trials: Sequence[Trial],
    folder: SweepFolder,
    earlier: Earlier | None,
    *,
    retry_failed: bool,
) -> Begun:
    """The record of a sweep, new or continued.

    trials: the planned ones; none where a searcher proposes them. earlier: whose finished trainings
    count here. Raises UsageError for a damaged record.
    """
    before = read_experiment(folder).experiment if is_experiment(folder) else None
    having = _matched(config, trials, folder, before)
    left = [_Having(h.changes, _left(folder, h.cell, retry_failed=retry_failed)) for h in having]
    runs = {h.cell.number: _planned(config, folder, h) for h in left if h.cell.state == "planned"}
    if earlier is not None:
        left = [_adopted(h, runs.get(h.cell.number), earlier, folder) for h in left]
    settings, cells = _named(left, population=_is_population(config))
    proposed = config.sweep.search == "optuna"
    asked = config.sweep.samples * len(config.sweep.seeds or (0,)) if proposed else 0
    experiment = Experiment(
        kind="sweep",
        name=config.name,
        metric=config.sweep.metric,
        mode=config.sweep.mode,
        planned=max(asked, len(cells)),
        seconds=None if before is None else before.seconds,
        settings=tuple(settings),
        cells=tuple(cells),
    )
    pending = [runs[cell.number] for cell in cells if cell.state == "planned"]
    return Begun(experiment, sorted(pending, key=lambda planned: planned.number))


def _matched(
    config: Config, trials: Sequence[Trial], folder: SweepFolder, before: Experiment | None
) -> list[_Having]:
    """The trials with what is known of them; then those that are known alone: that a searcher has
    proposed, or that more samples had."""
    population = _is_population(config)
    cells = () if before is None else before.cells
    known = [_Having(dict(before.setting(c.setting).changes), c) for c in cells if before]
    # Settings of a population change on the way: the number is what stays.
    found = {h.cell.number if population else _text(h.changes, h.cell.seed): h for h in known}
    free = max((cell.number for cell in cells), default=-1) + 1
    having = []
    for place, trial in enumerate(trials):
        changes = without_seed(trial.changes)
        key = place if population else _text(changes, trial.config.distill.seed)
        one = found.pop(key, None)
        if one is None:
            one, free = _Having(changes, _cell(folder, trial, free, population)), free + 1
        having.append(one)
    return [*having, *found.values()]


def _is_population(config: Config) -> bool:
    return isinstance(config.sweep.scheduler, PbtScheduler)


def _text(changes: Mapping[str, Any], seed: int) -> str:
    return json.dumps([changes, seed], sort_keys=True)


def _cell(folder: SweepFolder, trial: Trial, number: int, population: bool) -> Cell:
    distill = trial.config.distill
    run = folder.trial(number, None if population else trial.changes)
    return Cell(
        number=number,
        setting="",
        seed=distill.seed,
        state="planned",
        epochs=distill.epochs,
        run=folder.relative(run),
    )


def _left(folder: SweepFolder, cell: Cell, *, retry_failed: bool) -> Cell:
    """A cell as it is to go on: over, or planned."""
    if cell.state == "done" and cell.run is not None and folder.beside(cell.run).finished:
        return cell
    if cell.state == "stopped" or (cell.state == "failed" and not retry_failed):
        return cell
    return cell.model_copy(update={"state": "planned", "error": None})


def _planned(config: Config, folder: SweepFolder, having: _Having) -> Planned:
    sweep, cell = config.sweep, having.cell
    seeded = SEED in sweep.space or sweep.seeds is not None
    changes = {**having.changes, **({SEED: cell.seed} if seeded else {})}
    run = folder.beside(str(cell.run), "work")
    return Planned(cell.number, changes, changed(config, changes), run)


def _adopted(
    having: _Having, planned: Planned | None, earlier: Earlier, folder: SweepFolder
) -> _Having:
    """A cell as the earlier sweep has finished it, if it has."""
    run = None if planned is None else earlier.run_of(planned.config)
    if run is None:
        return having
    done = {
        "state": "done",
        "run": folder.relative(run),
        "epoch": having.cell.epochs,
        "value": read_metrics(run)[-1].get(earlier.config.sweep.metric),
        "seconds": run.summary().get("train_seconds"),
    }
    return having._replace(cell=having.cell.model_copy(update=done))


def _named(having: Sequence[_Having], *, population: bool) -> tuple[list[Setting], list[Cell]]:
    """Settings with names of their own, and the cells with those; in a population every trial has a
    setting to itself."""
    keys = [str(h.cell.number) if population else _text(h.changes, 0) for h in having]
    unique = {key: h.changes for key, h in zip(keys, having, strict=True)}
    settings = dict(zip(unique, settings_of(unique.values()), strict=True))
    if population:
        named = {key: {"name": f"trial {key}", "label": f"trial {key}"} for key in unique}
        settings = {key: setting.model_copy(update=named[key]) for key, setting in settings.items()}
    cells = [
        h.cell.model_copy(update={"setting": settings[key].name})
        for key, h in zip(keys, having, strict=True)
    ]
    return list(settings.values()), sorted(cells, key=lambda cell: cell.number)
