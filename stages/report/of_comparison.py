"""The page of a comparison."""

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from egapipe.pipeline.config import Config
from egapipe.pipeline.results.learned import require_one_source
from egapipe.pipeline.results.runs import RunFolder
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.stages.compare.recorded import recorded, without
from egapipe.stages.compare.table import WHOSE
from egapipe.stages.report.curves import TEST_TOP1, Metrics, group_curves
from egapipe.stages.report.figure import COLOURS, GREY, WIDTH, Figure, draw
from egapipe.stages.report.names import shortened
from egapipe.stages.report.page import Section
from egapipe.stages.report.parts import left_out, left_out_runs
from egapipe.stages.report.provenance import provenance
from egapipe.stages.report.separation import BETTER, reading
from egapipe.stages.report.timing import measure, timing_figure

Row = Mapping[str, Any]
"""A row or a cell of comparison.json."""
# Trainings without a result that are listed by name.
_NAMED = 12


def comparison_sections(folder: RunFolder) -> list[Section]:
    """Tables with intervals, figures, curves, time and provenance of a comparison.

    A training whose record of features is damaged counts as failed: it may be of others. Raises
    UsageError if the folder is none, or its runs learned from different features.
    """
    record, config = recorded(folder), folder.config()
    results, time, last = Section("Results"), Section("Time"), Section("Provenance")
    runs = {cell["run"]: folder.beside(cell["run"]) for cell in record["cells"]}
    damaged = left_out_runs(results, runs)
    if damaged:
        record = without(record, folder, damaged)
    require_one_source({name: run for name, run in runs.items() if name not in damaged})
    with left_out(results, "the results"):
        _add_results(results, folder, record, config)
    cells = record["cells"]
    with left_out(time, "the time of a training"):
        costs = measure(config, statistics.fmean(cell["seconds"] for cell in cells))
        if costs is not None:
            time.figure(timing_figure(costs))
    with left_out(last, "the provenance"):
        first = folder.beside(cells[0]["run"])
        last = provenance(config, first.summary() if first.finished else None)
    return [results, *([time] if time.parts else []), last]


def _add_results(section: Section, folder: RunFolder, record: Row, config: Config) -> None:
    cells, confidence = record["cells"], record["confidence"]
    _progress(section, record)
    baseline = next(iter(config.compare.variants), None) or record["rows"][0]["variant"]
    students: dict[str, list[Row]] = {}
    for row in _read(record, baseline):
        students.setdefault(row["student"], []).append(row)
    for student, rows in students.items():
        if len(students) > 1:
            section.heading(student)
        better = [i for i, row in enumerate(rows) if row["reading"] == BETTER]
        section.table(*_table(rows, baseline, confidence), best=better)
    if any(row["reading"] for rows in students.values() for row in rows):
        section.text(
            "n counts trainings, pairs those with the baseline's seed. An interval "
            f"({_level(confidence)}) is of one difference alone; better and worse hold for all "
            "variants of a student together, by Holm's method. Only better variants are marked."
        )
    if record.get("teacher_top1") is not None:
        section.text(f"The teacher's head on the same labels: {record['teacher_top1']:.2f} %.")
    figures: list[Figure | None] = []
    groups = _groups(section, folder, cells)
    with left_out(section, "the curves"):
        figures += [group_curves(groups)] if groups else []
    for number, (student, rows) in enumerate(students.items()):
        mine = [cell for cell in cells if cell["student"] == student]
        with left_out(section, f"the accuracy of {student}"):
            figures.append(_scores(f"scores-{number}", student, rows, mine))
        others = [row for row in rows if row["variant"] != baseline]
        if any(row["low"] is not None for row in others):
            with left_out(section, f"the paired differences of {student}"):
                figures.append(_gains(f"gains-{number}", student, others, baseline, confidence))
    section.figure(*(figure for figure in figures if figure is not None))


_WHOSE = {**WHOSE, "last": " after the last epoch"}


def _progress(section: Section, record: Row) -> None:
    """How many of the planned trainings there are, and which are not."""
    planned = record["planned"]
    done = [cell for cell in planned if cell["state"] == "done"]
    failed = {_key(cell): cell.get("error") or "" for cell in planned if cell["state"] == "failed"}
    missing = [_key(cell) for cell in planned if cell["state"] not in ("done", "failed")]
    seeds = len({cell["seed"] for cell in record["cells"]})
    count = f"{len(done):,} of {len(planned):,} planned trainings"
    whole = f"{len(done):,} trainings" if not (missing or failed) else count
    section.text(
        f"Top-1 on the test images{_WHOSE[record['weights']]}; {whole}, {seeds}"
        f" seed{'s'[: seeds != 1]}."
    )
    if missing:
        names = ", ".join(_cell_name(key) for key in missing[:_NAMED])
        more = f" and {len(missing) - _NAMED:,} more" if len(missing) > _NAMED else ""
        section.text(f"This comparison is not finished: there is no result of {names}{more}.")
    if failed:
        section.long_texts(
            ["failed", "error"], [(_cell_name(key), error) for key, error in failed.items()]
        )


def _key(cell: Row) -> tuple[Any, Any, Any]:
    return cell["student"], cell["variant"], cell["seed"]


def _cell_name(key: tuple[Any, Any, Any]) -> str:
    student, variant, seed = key
    return f"{student} {variant} seed {seed}"


def _read(record: Row, baseline: str) -> list[dict[str, Any]]:
    """The rows, with `n`, the trainings of each, and what each difference says, `reading`."""
    trained = Counter((cell["student"], cell["variant"]) for cell in record["cells"])
    return [
        {
            **row,
            "n": trained[row["student"], row["variant"]],
            "reading": "" if row["variant"] == baseline else reading(row),
        }
        for row in record["rows"]
    ]


def _table(
    rows: Sequence[Row], baseline: str, confidence: float
) -> tuple[list[str], list[list[str]]]:
    against = f"against {baseline}"
    interval = f"{_level(confidence)} interval"
    heading = ["variant", "n", "top-1 %", "std", against, "pairs", interval, "reading", "seconds"]
    return heading, [_line(row, row["variant"] == baseline) for row in rows]


def _line(row: Row, baseline: bool) -> list[str]:
    known = row["low"] is not None and not baseline
    paired = not baseline and row["gain"] is not None
    return [
        row["variant"],
        str(row["n"]),
        f"{row['mean']:.2f}",
        "" if row["std"] is None else f"{row['std']:.2f}",
        f"{row['gain']:+.2f}" if paired else "",
        str(row["pairs"]) if paired else "",
        f"{row['low']:+.2f} to {row['high']:+.2f}" if known else "",
        row["reading"],
        f"{row['seconds']:.1f}",
    ]


def _level(confidence: float) -> str:
    """As it was asked for: 99.83% is not 100%."""
    return f"{100 * confidence:.6g}%"


def _scores(name: str, student: str, rows: Sequence[Row], cells: Sequence[Row]) -> Figure:
    """Every training as a point, and the means."""

    def paint(axes: Any) -> None:
        for place, row in enumerate(rows):
            colour = COLOURS[place % len(COLOURS)]
            tops = [cell["top1"] for cell in cells if cell["variant"] == row["variant"]]
            axes.plot(tops, [place] * len(tops), "o", color=colour, alpha=0.7, markersize=5)
            axes.plot([row["mean"]], [place], "|", color=colour, markersize=18, markeredgewidth=2)
        axes.set(xlabel=TEST_TOP1)
        _places(axes, rows, "n")

    caption = "A point a training, of which the numbers in brackets count; the bar is the mean."
    return draw(name, f"Accuracy, {student}", caption, paint, size=_size(rows))


def _gains(
    name: str, student: str, others: Sequence[Row], baseline: str, confidence: float
) -> Figure:
    """Paired differences to the baseline with their intervals."""
    caption = (
        f"Mean over seeds of the difference with the same seed; the line is the "
        f"{_level(confidence)} interval of Student's t, of each difference alone, over as many "
        "pairs as stand beside its name."
    )
    paint = partial(_paint_gains, others=others, baseline=baseline)
    return draw(name, f"Paired differences, {student}", caption, paint, size=_size(others))


def _paint_gains(axes: Any, others: Sequence[Row], baseline: str) -> None:
    for place, row in enumerate(others):
        low, high, gain = (math.nan if row[k] is None else row[k] for k in ("low", "high", "gain"))
        colour = COLOURS[(place + 1) % len(COLOURS)]
        axes.plot([low, high], [place, place], color=colour, linewidth=2.5)
        axes.plot([gain], [place], "o", color=colour, markersize=7)
    axes.axvline(0, color=GREY, linewidth=1)
    axes.set(xlabel=f"top-1 against {shortened(baseline)}, points")
    _places(axes, others, "pairs")


def _places(axes: Any, rows: Sequence[Row], counted: str) -> None:
    names = [f"{shortened(row['variant'])} ({row[counted]})" for row in rows]
    axes.set_yticks(range(len(rows)), names)
    axes.set(ylim=(len(rows) - 0.4, -0.6))


def _size(rows: Sequence[Row]) -> tuple[float, float]:
    return WIDTH, 1.2 + 0.4 * len(rows)


def _groups(section: Section, folder: RunFolder, cells: Sequence[Row]) -> dict[str, list[Metrics]]:
    """The metrics of the trainings by variant, those that can be read."""
    several = len({cell["student"] for cell in cells}) > 1
    groups: dict[str, list[Metrics]] = {}
    for cell in cells:
        name = f"{cell['student']} {cell['variant']}" if several else cell["variant"]
        with left_out(section, f"the curve of {_cell_name(_key(cell))}"):
            metrics = read_metrics(folder.beside(cell["run"]))
            groups.setdefault(name, []).append(metrics)
    return groups
