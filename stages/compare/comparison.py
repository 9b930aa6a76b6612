"""Every variant with every student and seed: same store, same first weights, same batches."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from egapipe.pipeline.config import Config, to_yaml
from egapipe.pipeline.errors import TrainingError, UsageError
from egapipe.pipeline.results.experiment import (
    Cell,
    Experiment,
    Setting,
    is_experiment,
    read_experiment,
)
from egapipe.pipeline.results.learned import require_current
from egapipe.pipeline.results.runs import RunFolder, open_run
from egapipe.pipeline.results.standing import Standing, standings
from egapipe.pipeline.terminal.progress import OpenProgress, silent_progress
from egapipe.stages.compare.folder import ComparisonFolder, comparison_folder, trainings
from egapipe.stages.compare.running import Running, Watch, nobody
from egapipe.stages.distill.folder import training_folder
from egapipe.stages.distill.setup import prepare
from egapipe.stages.distill.workers.world import World
from egapipe.stages.experiment.cells import (
    SAME_FOR_ALL,
    SEED,
    Changes,
    Planned,
    changed,
    consequences,
)

MEASURED = {"last": "top1", "best": "best_top1", "ema": "ema_top1"}
"""Weights -> what a run's summary calls their accuracy."""
Key = tuple[str, str, int]
"""Student, variant and seed of a cell."""


@dataclass(frozen=True)
class CompareReport:
    """A comparison: path or URL of its folder, its record and, in the order of the configuration, a
    row a student and variant."""

    folder: str | Path
    experiment: Experiment
    rows: list[Standing]

    @property
    def done(self) -> list[Cell]:
        """The cells that are trained to their end."""
        return [cell for cell in self.experiment.cells if cell.state == "done"]

    @property
    def trainings(self) -> list[dict[str, Any]]:
        """The same as plain values: student, variant, seed, run (path or URL), top1, seconds."""
        folder = open_run(self.folder)
        rows = trainings(self.experiment)
        return [{**row, "run": str(folder.beside(row["run"]).place)} for row in rows]


def run(
    config: Config, *, progress: OpenProgress = silent_progress, watch: Watch = nobody
) -> CompareReport:
    """Train every cell that is not finished yet; run it again after a kill and it continues.

    Record and tables are written anew after every cell, see `ComparisonFolder`. A cell whose
    training fails is recorded, and the others go on. watch: told of the experiment, often, where
    several cells run at once. Raises UsageError or StoreError before any training for whatever a
    cell would stumble over; TrainingError if all of them failed, or another process runs it.
    """
    plans = plan(config)
    check_cells(config, plans)
    folders = {key: training_folder(tree) for key, tree in plans.items()}
    _refuse_equal(folders)
    for key, run_folder in folders.items():
        if run_folder.finished:
            require_current(run_folder, plans[key])
    folder = comparison_folder(config, list(folders.values()))
    with folder.exclusive() as folder:
        experiment, cells = _begin(config, folder, plans, folders)
        folder.write("config.yaml", to_yaml(config).encode())
        running = Running(config, folder, experiment, cells, measured_by(config))
        experiment = running.run(progress, watch)
    report = CompareReport(folder.place, experiment, standings(experiment))
    if not report.done:
        error = next((cell.error for cell in experiment.cells if cell.error), "none is left")
        raise TrainingError(f"all trainings failed: {error}")
    return report


def measured_by(config: Config) -> str:
    """What a run's summary calls the accuracy that is compared."""
    return MEASURED[config.compare.weights]


def _begin(
    config: Config,
    folder: ComparisonFolder,
    plans: Mapping[Key, Config],
    folders: Mapping[Key, RunFolder],
) -> tuple[Experiment, list[Planned]]:
    """The record to begin with, and all cells in the order of the plan."""
    before = read_experiment(folder).experiment if is_experiment(folder) else None
    several = len({student for student, _, _ in plans}) > 1
    settings: dict[tuple[str, str], Setting] = {}
    cells, planned = [], []
    for number, (key, tree) in enumerate(plans.items()):
        student, variant, seed = key
        changes = changes_of(config, student, variant)
        setting = settings.setdefault(
            key[:2],
            Setting(
                name=f"{student} {variant}" if several else variant,
                label=variant,
                group=student,
                changes=changes,
            ),
        )
        run_folder = folders[key]
        planned.append(Planned(number, {**changes, SEED: seed}, tree, run_folder))
        cells.append(_cell(number, setting, tree, folder.relative(run_folder), before))
    return Experiment(
        kind="comparison",
        name=config.name,
        metric="test/top1",
        mode="max",
        weights=config.compare.weights,
        confidence=config.compare.confidence,
        baseline=next(iter(config.compare.variants)),
        planned=len(cells),
        seconds=None if before is None else before.seconds,
        settings=tuple(settings.values()),
        cells=tuple(cells),
    ), planned


def _cell(number: int, setting: Setting, tree: Config, run: str, before: Experiment | None) -> Cell:
    """A cell to be trained, with what is known of its times and epochs."""
    epochs = tree.distill.epochs
    known = next((c for c in before.cells if c.run == run), None) if before is not None else None
    if known is None:
        known = Cell(number=0, setting="", seed=tree.distill.seed, state="planned", epochs=epochs)
    own = {"number": number, "setting": setting.name, "epochs": epochs, "run": run}
    return known.model_copy(update={**own, "state": "planned", "error": None})


def check_cells(config: Config, plans: Mapping[Key, Config]) -> None:
    """Open and build once what every cell needs, as its training would.

    Raises UsageError or StoreError for the first that does not fit, naming the cell.
    """
    if not plans:
        raise UsageError("compare.variants is empty: name at least one, e.g. {ce: {...}, ega: {}}")
    seen = set()
    for (student, variant, _), tree in plans.items():
        if (student, variant) in seen:
            continue
        seen.add((student, variant))
        _check_cell(config, student, variant, tree)


def _check_cell(config: Config, student: str, variant: str, tree: Config) -> None:
    if tree.dataset.test is None:
        raise UsageError(f"{config.name} has no dataset.test: a comparison needs labelled images")
    if config.compare.weights == "ema" and tree.distill.ema_decay is None:
        raise UsageError(
            f"compare.weights is ema, but student {student}, variant {variant} keeps no moving "
            "average: set distill.ema_decay"
        )
    changes = changes_of(config, student, variant)
    if config.compare.max_concurrent > 1:
        for name in SAME_FOR_ALL:
            if f"distill.{name}" in changes:
                raise UsageError(
                    f"student {student}, variant {variant} changes distill.{name}, which is the"
                    " same for all trainings that run at once: set it for all of them, or"
                    " compare.max_concurrent=1"
                )
    try:
        # The same in all processes, and no GPU is filled for it.
        prepare(tree, World.alone(torch.device("cpu")))
    except UsageError as error:
        raise UsageError(f"student {student}, variant {variant}: {error}") from None


def _refuse_equal(folders: Mapping[Key, RunFolder]) -> None:
    """Raise UsageError for two cells that are one training under two names."""
    known: dict[Path, Key] = {}
    for key, run_folder in folders.items():
        other = known.setdefault(run_folder.path, key)
        if other != key:
            names = [
                f"student {student}, variant {variant}" for student, variant, _ in (other, key)
            ]
            raise UsageError(
                f"{names[0]} and {names[1]} are the same training: give them different settings of"
                " distill, or leave one out"
            )


def plan(config: Config) -> dict[Key, Config]:
    """(student, variant, seed) -> the configuration of a cell.

    A seed is finished with every variant before the next one begins, so that an interrupted
    comparison already has pairs. Raises UsageError for an override that does not fit.
    """
    students = config.compare.students or {config.distill.student.name: {}}
    return {
        (student, variant, seed): changed(
            config,
            {**changes_of(config, student, variant), SEED: seed},
            f"student {student}, variant {variant}",
        )
        for seed in config.compare.seeds
        for student in students
        for variant in config.compare.variants
    }


def changes_of(config: Config, student: str, variant: str) -> Changes:
    """What a student and a variant change of the configuration, by dotted path, with what its
    recipe says of them."""
    compare = config.compare
    own: Changes = {}
    if student in compare.students:
        own = {"distill.student.name": student, **compare.students[student]}
    own |= compare.variants[variant]
    return {**own, **consequences(config, own)}
