"""Every variant with every student and seed: same store, same first weights, same batches."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from egapipe.pipeline.config import Config, override
from egapipe.pipeline.config.load import check
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.learned import require_one_source
from egapipe.pipeline.progress import OpenProgress, silent_progress
from egapipe.pipeline.runs import RunFolder
from egapipe.stages import distill
from egapipe.stages.compare.folder import ComparisonFolder, comparison_folder
from egapipe.stages.compare.table import Cell, Row, table
from egapipe.stages.distill.folder import training_folder


@dataclass(frozen=True)
class CompareReport:
    """All cells and, in the order of the configuration, a row a student and variant."""

    folder: Path
    """Where the tables were written."""
    cells: list[Cell]
    rows: list[Row]
    teacher_top1: float | None
    """Mean accuracy of the teacher's head over cells, %."""
    confidence: float
    """Level of the intervals."""


def run(config: Config, *, progress: OpenProgress = silent_progress) -> CompareReport:
    """Train every cell that is not finished yet; run it again after a kill and it continues.

    The tables are written anew after every cell, see `ComparisonFolder`. Raises UsageError without
    variants, or for an override that does not fit, before any training.
    """
    plans = plan(config)
    folder = comparison_folder(config, [training_folder(tree) for tree in plans.values()])
    report: CompareReport | None = None
    cells: list[Cell] = []
    teacher: list[float] = []
    for (student, variant, seed), tree in plans.items():
        done = distill.run(tree, progress=progress, title=f"{student} {variant} seed {seed}")
        if done.top1 is None:
            raise UsageError(
                f"{config.name} has no dataset.test: a comparison needs labelled images"
            )
        seconds = done.summary["train_seconds"]
        cells.append(Cell(student, variant, seed, done.run, done.top1, seconds))
        if "teacher_top1" in done.summary:
            teacher.append(done.summary["teacher_top1"])
        report = _report(config, folder, cells, teacher)
        require_one_source({str(cell.run): RunFolder(cell.run) for cell in cells})
        folder.write(config, report.cells, report.rows, report.teacher_top1)
    if report is None:
        raise UsageError("compare.variants is empty: name at least one, e.g. {ce: {...}, ega: {}}")
    return report


def plan(config: Config) -> dict[tuple[str, str, int], Config]:
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


def _name(cell: Cell) -> str:
    return f"{cell.student} {cell.variant} seed {cell.seed}"


def _report(
    config: Config, folder: ComparisonFolder, cells: Sequence[Cell], teacher: Sequence[float]
) -> CompareReport:
    confidence = config.compare.confidence
    return CompareReport(
        folder.path,
        list(cells),
        table(cells, confidence),
        statistics.fmean(teacher) if teacher else None,
        confidence,
    )
