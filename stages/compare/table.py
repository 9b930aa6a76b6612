"""From single trainings to means, paired differences and their intervals."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cell:
    """One training: its run folder, test accuracy after the last epoch in %, and its seconds."""

    student: str
    variant: str
    seed: int
    run: Path
    top1: float
    seconds: float


@dataclass(frozen=True)
class Row:
    """A student and variant over all seeds. Accuracies in % top-1; NaN where one seed says nothing.

    gain: mean difference to the baseline with the same student and seed, of `pairs` seeds.
    """

    student: str
    variant: str
    mean: float
    std: float
    gain: float
    gain_std: float
    low: float
    """Lower end of the gain's confidence interval."""
    high: float
    """Upper end of the gain's confidence interval."""
    pairs: int
    seconds: float
    """Mean of the trainings."""


def table(cells: Sequence[Cell], confidence: float = 0.95) -> list[Row]:
    """A row a student and variant, in the order of the cells.

    The first variant is the baseline. The interval is Student's t of the paired differences:
    mean ± t(n - 1) std / sqrt(n).
    """
    by = {(cell.student, cell.variant, cell.seed): cell for cell in cells}
    baseline = cells[0].variant
    names = dict.fromkeys((cell.student, cell.variant) for cell in cells)
    return [_row(student, variant, baseline, by, confidence) for student, variant in names]


def _row(
    student: str,
    variant: str,
    baseline: str,
    by: Mapping[tuple[str, str, int], Cell],
    confidence: float,
) -> Row:
    mine = [cell for key, cell in by.items() if key[:2] == (student, variant)]
    gains = [
        cell.top1 - by[student, baseline, cell.seed].top1
        for cell in mine
        if (student, baseline, cell.seed) in by
    ]
    gain, half = statistics.fmean(gains), half_width(gains, confidence)
    return Row(
        student=student,
        variant=variant,
        mean=statistics.fmean(cell.top1 for cell in mine),
        std=_std([cell.top1 for cell in mine]),
        gain=gain,
        gain_std=_std(gains),
        low=gain - half,
        high=gain + half,
        pairs=len(gains),
        seconds=statistics.fmean(cell.seconds for cell in mine),
    )


def half_width(values: Sequence[float], confidence: float) -> float:
    """Half the width of Student's t interval around a mean; NaN for fewer than two values."""
    if len(values) < 2:
        return math.nan
    from scipy.stats import t

    quantile = float(t.ppf((1 + confidence) / 2, len(values) - 1))
    return quantile * statistics.stdev(values) / math.sqrt(len(values))


def _std(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else math.nan
