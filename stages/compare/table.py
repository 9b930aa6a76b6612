"""From single trainings to means, paired differences and their intervals."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from egapipe.pipeline.mathematics.significance import half_width, holm, p_value


@dataclass(frozen=True)
class Cell:
    """One training: path or URL of its run folder, its test accuracy in %, and its seconds."""

    student: str
    variant: str
    seed: int
    run: str | Path
    top1: float
    seconds: float


WHOSE = {"last": "", "best": " of the best checkpoint", "ema": " of the moving average"}
"""Whose accuracy a comparison is of, in words."""
State = Literal["planned", "done", "failed"]


@dataclass(frozen=True)
class Planned:
    """A cell, whether it is trained or not. error: why it failed, in one line."""

    student: str
    variant: str
    seed: int
    state: State
    error: str | None = None


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
    n: int
    """Trainings done."""
    p: float
    """Of a gain this far from 0 if there were none: Student's t of the paired differences, times
    what Holm's correction over the student's variants makes of it; NaN without two pairs."""
    separates: bool
    """Whether the gain differs from 0 at the level of the intervals, after that correction."""


def table(
    cells: Sequence[Cell], confidence: float = 0.95, baseline: str | None = None
) -> list[Row]:
    """A row a student and variant, in the order of the cells.

    baseline: the variant that the others are compared with; the first one if it is not given. The
    interval is Student's t of the paired differences: mean ± t(n - 1) std / sqrt(n).
    """
    if not cells:
        return []
    by = {(cell.student, cell.variant, cell.seed): cell for cell in cells}
    first = cells[0].variant if baseline is None else baseline
    names = dict.fromkeys((cell.student, cell.variant) for cell in cells)
    rows = [_row(student, variant, first, by, confidence) for student, variant in names]
    corrected = {}
    for student in dict.fromkeys(row.student for row in rows):
        mine = [row for row in rows if row.student == student and row.variant != first]
        known = [row for row in mine if not math.isnan(row.p)]
        for row, p in zip(known, holm([row.p for row in known]), strict=True):
            corrected[row] = replace(row, p=p, separates=p <= 1 - confidence)
    return [corrected.get(row, row) for row in rows]


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
    gain = statistics.fmean(gains) if gains else math.nan
    half = half_width(gains, confidence)
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
        n=len(mine),
        p=math.nan if variant == baseline else p_value(gains),
        separates=False,
    )


def percent(share: float) -> str:
    """A share as it is given, `95 %` or `99.83 %`, never rounded to 100 %."""
    return f"{float(f'{100 * share:.12g}'):.12g} %"


def _std(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else math.nan
