"""The page of a comparison."""

import math
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from egapipe.pipeline.learned import require_one_source
from egapipe.pipeline.runs import RunFolder
from egapipe.pipeline.tracking import read_metrics
from egapipe.stages.compare import ComparisonFolder
from egapipe.stages.report.curves import TEST_TOP1, Metrics, group_curves
from egapipe.stages.report.figure import COLOURS, GREY, WIDTH, Figure, draw, shortened
from egapipe.stages.report.page import Section
from egapipe.stages.report.provenance import provenance
from egapipe.stages.report.timing import measure, timing_figure

Row = Mapping[str, Any]
"""A row or a cell of comparison.json."""


def comparison_sections(path: Path) -> list[Section]:
    """Tables with intervals, figures, curves, time and provenance of a comparison.

    Raises UsageError if the folder is none, or its runs learned from different features.
    """
    record, config = ComparisonFolder(path).read(), RunFolder(path).config()
    cells = record["cells"]
    require_one_source({cell["run"]: RunFolder(path / cell["run"]) for cell in cells})
    sections = [_results(path, record)]
    costs = measure(config, statistics.fmean(cell["seconds"] for cell in cells))
    if costs is not None:
        time = Section("Time")
        time.figure(timing_figure(costs))
        sections.append(time)
    first = RunFolder(path / cells[0]["run"])
    return [*sections, provenance(config, first.summary() if first.finished else None)]


def _results(path: Path, record: Row) -> Section:
    section = Section("Results")
    cells, confidence = record["cells"], record["confidence"]
    seeds = len({cell["seed"] for cell in cells})
    section.text(
        f"Top-1 on the test images, {len(cells)} trainings, {seeds} seed{'s'[: seeds != 1]}."
    )
    students: dict[str, list[Row]] = {}
    for row in record["rows"]:
        students.setdefault(row["student"], []).append(row)
    for student, rows in students.items():
        if len(students) > 1:
            section.heading(student)
        means = [row["mean"] for row in rows]
        section.table(*_table(rows, confidence), best=means.index(max(means)))
    if record["teacher_top1"] is not None:
        section.text(f"The teacher's head on the same labels: {record['teacher_top1']:.2f} %.")
    figures = [group_curves(_groups(path, cells))]
    for number, (student, rows) in enumerate(students.items()):
        mine = [cell for cell in cells if cell["student"] == student]
        figures.append(_scores(f"scores-{number}", student, rows, mine))
        if any(row["low"] is not None for row in rows[1:]):
            figures.append(_gains(f"gains-{number}", student, rows, confidence))
    section.figure(*(figure for figure in figures if figure is not None))
    return section


def _table(rows: Sequence[Row], confidence: float) -> tuple[list[str], list[list[str]]]:
    baseline = rows[0]["variant"]
    interval = f"{confidence:.0%} interval"
    heading = ["variant", "top-1 %", "std", f"against {baseline}", interval, "seconds"]
    return heading, [_line(row, row["variant"] == baseline) for row in rows]


def _line(row: Row, baseline: bool) -> list[str]:
    known = row["low"] is not None and not baseline
    return [
        row["variant"],
        f"{row['mean']:.2f}",
        "" if row["std"] is None else f"{row['std']:.2f}",
        "" if baseline else f"{row['gain']:+.2f}",
        f"{row['low']:+.2f} to {row['high']:+.2f}" if known else "",
        f"{row['seconds']:.1f}",
    ]


def _scores(name: str, student: str, rows: Sequence[Row], cells: Sequence[Row]) -> Figure:
    """Every training as a point, and the means."""

    def paint(axes: Any) -> None:
        for place, row in enumerate(rows):
            colour = COLOURS[place % len(COLOURS)]
            tops = [cell["top1"] for cell in cells if cell["variant"] == row["variant"]]
            axes.plot(tops, [place] * len(tops), "o", color=colour, alpha=0.7, markersize=5)
            axes.plot([row["mean"]], [place], "|", color=colour, markersize=18, markeredgewidth=2)
        axes.set(xlabel=TEST_TOP1)
        _places(axes, rows)

    caption = "A point a training; the bar is their mean."
    return draw(name, f"Accuracy, {student}", caption, paint, size=_size(rows))


def _gains(name: str, student: str, rows: Sequence[Row], confidence: float) -> Figure:
    """Paired differences to the baseline with their intervals."""
    others = list(rows[1:])
    caption = (
        f"Mean over seeds of the difference with the same seed; the line is the {confidence:.0%} "
        f"interval of Student's t over {others[0]['pairs']} pairs."
    )
    paint = partial(_paint_gains, others=others, baseline=rows[0]["variant"])
    return draw(name, f"Paired differences, {student}", caption, paint, size=_size(others))


def _paint_gains(axes: Any, others: Sequence[Row], baseline: str) -> None:
    for place, row in enumerate(others):
        low, high = (math.nan if row[k] is None else row[k] for k in ("low", "high"))
        colour = COLOURS[(place + 1) % len(COLOURS)]
        axes.plot([low, high], [place, place], color=colour, linewidth=2.5)
        axes.plot([row["gain"]], [place], "o", color=colour, markersize=7)
    axes.axvline(0, color=GREY, linewidth=1)
    axes.set(xlabel=f"top-1 against {shortened(baseline)}, points")
    _places(axes, others)


def _places(axes: Any, rows: Sequence[Row]) -> None:
    axes.set_yticks(range(len(rows)), [shortened(row["variant"]) for row in rows])
    axes.set(ylim=(len(rows) - 0.4, -0.6))


def _size(rows: Sequence[Row]) -> tuple[float, float]:
    return WIDTH, 1.2 + 0.4 * len(rows)


def _groups(path: Path, cells: Sequence[Row]) -> dict[str, list[Metrics]]:
    several = len({cell["student"] for cell in cells}) > 1
    groups: dict[str, list[Metrics]] = {}
    for cell in cells:
        name = f"{cell['student']} {cell['variant']}" if several else cell["variant"]
        groups.setdefault(name, []).append(read_metrics(RunFolder(path / cell["run"])))
    return groups
