"""Every variant with every seed: same store, same first weights, same batches."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from egapipe.pipeline.config import Config, override
from egapipe.pipeline.config.load import check
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.progress import OpenProgress, silent_progress
from egapipe.stages import distill


@dataclass(frozen=True)
class Cell:
    """One training: its run folder and test accuracy, %."""

    variant: str
    seed: int
    run: Path
    top1: float
    seconds: float


@dataclass(frozen=True)
class Row:
    """A variant over all seeds. mean, std: of the last epoch's top-1, %. gain: mean difference to
    the baseline of the same seed; gain_std: its standard deviation (NaN for one seed)."""

    variant: str
    mean: float
    std: float
    gain: float
    gain_std: float
    seconds: float


@dataclass(frozen=True)
class CompareReport:
    """All cells and, in the order of the configuration, a row a variant."""

    cells: list[Cell]
    rows: list[Row]
    teacher_top1: float | None
    """Mean accuracy of the teacher's head over cells, %."""


def run(config: Config, *, progress: OpenProgress = silent_progress) -> CompareReport:
    """Train every cell that is not finished yet; run it again after a kill and it continues.

    Raises UsageError without variants, or for an override that does not fit, before any training.
    """
    cells = [
        (variant, seed, variant_config(config, variant, seed))
        for seed in config.compare.seeds
        for variant in config.compare.variants
    ]
    if not cells:
        raise UsageError("compare.variants is empty: name at least one, e.g. {ce: {...}, ega: {}}")
    done, teacher = [], []
    for variant, seed, tree in cells:
        report = distill.run(tree, progress=progress, title=f"{variant} seed {seed}")
        if report.top1 is None:
            raise UsageError(
                f"{config.name} has no dataset.test: a comparison needs labelled images"
            )
        done.append(Cell(variant, seed, report.run, report.top1, report.summary["train_seconds"]))
        teacher.append(report.summary.get("teacher_top1"))
    known = [value for value in teacher if value is not None]
    return CompareReport(done, table(done), statistics.fmean(known) if known else None)


def variant_config(config: Config, variant: str, seed: int) -> Config:
    """The configuration of one cell."""
    changes = {**config.compare.variants[variant], "distill.seed": seed}
    return check(override(config.model_dump(mode="json"), changes), f"variant {variant}")


def table(cells: Sequence[Cell]) -> list[Row]:
    """A row a variant; the first variant is the baseline of the paired differences."""
    variants = list(dict.fromkeys(cell.variant for cell in cells))
    by = {(cell.variant, cell.seed): cell for cell in cells}
    return [_row(name, variants[0], by) for name in variants]


def _row(name: str, baseline: str, by: Mapping[tuple[str, int], Cell]) -> Row:
    mine = [cell for (variant, _), cell in by.items() if variant == name]
    gains = [cell.top1 - by[baseline, cell.seed].top1 for cell in mine]
    return Row(
        variant=name,
        mean=statistics.fmean(cell.top1 for cell in mine),
        std=_std([cell.top1 for cell in mine]),
        gain=statistics.fmean(gains),
        gain_std=_std(gains),
        seconds=statistics.fmean(cell.seconds for cell in mine),
    )


def _std(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else math.nan
