"""Every variant with every student and seed: same store, same first weights, same batches."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from egapipe.pipeline.config import Config, override
from egapipe.pipeline.config.load import check
from egapipe.pipeline.errors import TrainingError, UsageError, one_line
from egapipe.pipeline.results.learned import require_one_source
from egapipe.pipeline.results.runs import RunFolder
from egapipe.pipeline.terminal.progress import OpenProgress, silent_progress
from egapipe.stages import distill
from egapipe.stages.compare.folder import ComparisonFolder, comparison_folder
from egapipe.stages.compare.table import Cell, Planned, Row, State, table
from egapipe.stages.distill.folder import training_folder
from egapipe.stages.distill.setup import prepare
from egapipe.stages.distill.workers.world import World

MEASURED = {"last": "top1", "best": "best_top1", "ema": "ema_top1"}
"""Weights -> what a run's summary calls their accuracy."""
Key = tuple[str, str, int]
"""Student, variant and seed of a cell."""


@dataclass(frozen=True)
class CompareReport:
    """All cells and, in the order of the configuration, a row a student and variant."""

    folder: str | Path
    """Path or URL, where the tables were written."""
    planned: list[Planned]
    """All cells, in the order that they are trained in."""
    cells: list[Cell]
    """Those that are done."""
    rows: list[Row]
    teacher_top1: float | None
    """Mean accuracy of the teacher's head over cells, %."""
    confidence: float
    """Level of the intervals."""
    weights: str = "last"
    """Whose accuracy it is, see `CompareConfig`."""


def run(config: Config, *, progress: OpenProgress = silent_progress) -> CompareReport:
    """Train every cell that is not finished yet; run it again after a kill and it continues.

    The tables are written anew after every cell, see `ComparisonFolder`. A cell whose training
    fails is recorded, and the others go on. Raises UsageError or StoreError before any training for
    whatever a cell would stumble over; TrainingError if all of them failed.
    """
    plans = plan(config)
    check_cells(config, plans)
    folders = {key: training_folder(tree) for key, tree in plans.items()}
    _refuse_equal(folders)
    folder = comparison_folder(config, list(folders.values()))
    progressed = _Progressed(config, folder, folders)
    # Finished ones first: what is known is in the tables before hours of training.
    for key in sorted(plans, key=lambda key: not folders[key].finished):
        progressed.write()
        student, variant, seed = key
        try:
            done = distill.run(
                plans[key], progress=progress, title=f"{student} {variant} seed {seed}"
            )
        except TrainingError as error:
            progressed.errors[key] = one_line(error)
        else:
            progressed.summaries[key] = done.summary
        require_one_source({str(f.path): f for f in progressed.done().values()})
    report = progressed.write()
    if not report.cells:
        raise TrainingError(f"all trainings failed: {next(iter(progressed.errors.values()))}")
    return report


class _Progressed:
    """What is known of the cells while they are trained."""

    def __init__(
        self, config: Config, folder: ComparisonFolder, folders: Mapping[Key, RunFolder]
    ) -> None:
        self._config, self._folder, self._folders = config, folder, folders
        self.summaries: dict[Key, Mapping[str, Any]] = {}
        self.errors: dict[Key, str] = {}

    def done(self) -> dict[Key, RunFolder]:
        """The folders of the cells that are done."""
        return {key: run for key, run in self._folders.items() if key in self.summaries}

    def write(self) -> CompareReport:
        """Write the tables; what is in them."""
        for key in list(self.errors):
            # Another process may have had it.
            if self._folders[key].finished:
                self.summaries[key] = self._folders[key].summary()
                del self.errors[key]
        top1 = MEASURED[self._config.compare.weights]
        cells = [
            Cell(
                *key,
                run.url or run.path,
                self.summaries[key][top1],
                self.summaries[key]["train_seconds"],
            )
            for key, run in self.done().items()
        ]
        planned = [Planned(*key, self._state(key), self.errors.get(key)) for key in self._folders]
        tops = [s["teacher_top1"] for s in self.summaries.values() if "teacher_top1" in s]
        confidence = self._config.compare.confidence
        report = CompareReport(
            self._folder.url or self._folder.path,
            planned,
            cells,
            table(cells, confidence, planned[0].variant),
            statistics.fmean(tops) if tops else None,
            confidence,
            self._config.compare.weights,
        )
        self._folder.record(self._config, planned, cells, report.rows, report.teacher_top1)
        return report

    def _state(self, key: Key) -> State:
        if key in self.summaries:
            return "done"
        return "failed" if key in self.errors else "planned"


def check_cells(config: Config, plans: Mapping[Key, Config]) -> None:
    """Open and build once what every cell needs, as its training would.

    Raises UsageError or StoreError for the first that does not fit, naming the cell.
    """
    if not plans:
        raise UsageError("compare.variants is empty: name at least one, e.g. {ce: {...}, ega: {}}")
    seen = set()
    for (student, variant, _), tree in plans.items():
        if tree.dataset.test is None:
            raise UsageError(
                f"{config.name} has no dataset.test: a comparison needs labelled images"
            )
        if config.compare.weights == "ema" and tree.distill.ema_decay is None:
            raise UsageError(
                f"compare.weights is ema, but student {student}, variant {variant} keeps no moving "
                "average: set distill.ema_decay"
            )
        if (student, variant) in seen:
            continue
        seen.add((student, variant))
        try:
            # The same in all processes, and no GPU is filled for it.
            prepare(tree, World.alone(torch.device("cpu")))
        except UsageError as error:
            raise UsageError(f"student {student}, variant {variant}: {error}") from None


def _refuse_equal(folders: Mapping[Key, RunFolder]) -> None:
    """Raise UsageError for two cells that are one training under two names."""
    known: dict[Path, Key] = {}
    for key, run in folders.items():
        other = known.setdefault(run.path, key)
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
        (student, variant, seed): _cell(config, student, variant, seed)
        for seed in config.compare.seeds
        for student in students
        for variant in config.compare.variants
    }


def _cell(config: Config, student: str, variant: str, seed: int) -> Config:
    compare = config.compare
    changes: dict[str, object] = {}
    if student in compare.students:
        changes = {"distill.student.name": student, **compare.students[student]}
    changes = {**changes, **compare.variants[variant], "distill.seed": seed}
    tree = override(config.model_dump(mode="json"), changes)
    return check(tree, f"student {student}, variant {variant}")
