"""The page of a comparison."""

import math
import statistics
from collections.abc import Mapping, Sequence

from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.results.experiment import Cell, Experiment, Recorded, Setting
from egapipe.pipeline.results.labels import setting_label
from egapipe.pipeline.results.learned import require_one_source
from egapipe.pipeline.results.standing import Standing, standings
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.stages.report.charts.curves import ACCURACY, TEST_TOP1, Metrics, group_curves
from egapipe.stages.report.charts.figure import Figure
from egapipe.stages.report.charts.scores import gain_figure, score_figure
from egapipe.stages.report.charts.series import Series
from egapipe.stages.report.charts.timing import measure, timing_figure
from egapipe.stages.report.pages.document import Section
from egapipe.stages.report.parts import damaged_cells, left_out
from egapipe.stages.report.provenance import provenance
from egapipe.stages.report.reading import BETTER, reading

# Trainings without a result that are listed by name.
_NAMED = 12
_WHOSE = {
    "last": " after the last epoch",
    "best": " of the best checkpoint",
    "ema": " of the moving average",
}


def comparison_sections(recorded: Recorded) -> list[Section]:
    """Tables with intervals, figures, curves, time and provenance of a comparison.

    A training whose record of features is damaged counts as failed: it may be of others. Raises
    UsageError if its runs learned from different features.
    """
    folder, experiment = recorded.folder, recorded.experiment
    config = folder.config()
    results, time, last = Section("Results"), Section("Time"), Section("Provenance")
    damaged = damaged_cells(results, recorded)
    require_one_source(
        {
            str(cell.run): run
            for cell in experiment.cells
            if cell.number not in damaged and (run := recorded.run(cell))
        }
    )
    done = [c for c in experiment.cells if c.state == "done" and c.number not in damaged]
    if damaged and not done:
        reason = next(iter(damaged.values()))
        raise UsageError(f"no training of the comparison {folder.where} counts: {reason}")
    with left_out(results, "the results"):
        _add_results(results, recorded, damaged)
    seconds = [cell.seconds for cell in done if cell.seconds]
    with left_out(time, "the time of a training"):
        costs = measure(config, statistics.fmean(seconds)) if seconds else None
        if costs is not None:
            time.figure(timing_figure(costs))
    with left_out(last, "the provenance"):
        first = recorded.run(done[0]) if done else None
        last = provenance(config, first.summary() if first and first.finished else None)
    return [results, *([time] if time.parts else []), last]


def _add_results(section: Section, recorded: Recorded, damaged: Mapping[int, str]) -> None:
    experiment = recorded.experiment
    _progress(section, experiment, damaged)
    found = {s.setting.name: s for s in standings(experiment, damaged)}
    if experiment.teacher is not None:
        section.text(f"The teacher's head on the same labels: {experiment.teacher:.2f} %.")
    for number, (group, settings) in enumerate(experiment.groups.items()):
        if len(experiment.groups) > 1:
            section.heading(group)
        rows = [found[setting.name] for setting in settings]
        series = Series(tuple(setting.label for setting in settings), f"variants-{number}")
        _add_group(section, recorded, number, group, rows, series, damaged)
    if any(_said(experiment, standing) for standing in found.values()):
        section.text(
            "n counts trainings, pairs those with the baseline's seed. An interval "
            f"({_level(experiment.confidence)}) is of one difference alone; better and worse hold "
            "for all variants of a student together, by Holm's method. Only better variants are "
            "marked."
        )


def _add_group(
    section: Section,
    recorded: Recorded,
    number: int,
    group: str,
    rows: Sequence[Standing],
    series: Series,
    damaged: Mapping[int, str],
) -> None:
    """Tables and figures of one student."""
    experiment = recorded.experiment
    metric = TEST_TOP1 if experiment.metric == ACCURACY else experiment.metric
    better = [i for i, row in enumerate(rows) if _said(experiment, row) == BETTER]
    heading, lines = _table(experiment, rows)
    section.table(heading, lines, texts=(0, 7, 9), best=better, series=series)
    figures: list[Figure | None] = []
    with left_out(section, "the curves"):
        groups = [
            _metrics(section, recorded, experiment.cells_of(row.setting), damaged) for row in rows
        ]
        figures.append(
            group_curves(f"curves-{number}", f"Learning curves, {group}", groups, series)
        )
    if any(row.n for row in rows):
        with left_out(section, f"the accuracy of {group}"):
            title = f"Accuracy, {group}"
            figures.append(score_figure(f"scores-{number}", title, rows, series, metric))
    if any(row.pairs > 1 for row in rows):
        with left_out(section, f"the paired differences of {group}"):
            figures.append(
                gain_figure(
                    f"gains-{number}",
                    f"Paired differences, {group}",
                    rows,
                    series,
                    experiment.baseline or "",
                    _level(experiment.confidence),
                )
            )
    section.figure(*(figure for figure in figures if figure is not None))
    seeds = sorted({seed for row in rows for seed in row.values})
    if len(seeds) > 1:
        section.heading(f"Every seed, {group}")
        section.text(f"{metric}, of each training.")
        section.table(
            ["variant", *(f"seed {seed}" for seed in seeds)],
            [[row.setting.label, *(_of(row.values.get(seed)) for seed in seeds)] for row in rows],
            series=series,
        )


def _progress(section: Section, experiment: Experiment, damaged: Mapping[int, str]) -> None:
    """How many of the planned trainings there are, and which are not."""
    cells = experiment.cells
    done = [c for c in cells if c.state == "done" and c.number not in damaged]
    failed = [
        (_name(experiment, c), damaged.get(c.number) or c.error or "")
        for c in cells
        if c.state == "failed" or c.number in damaged
    ]
    missing = [_name(experiment, c) for c in cells if c.state in ("planned", "running", "stopped")]
    planned = max(experiment.planned, len(cells))
    seeds = len({cell.seed for cell in done})
    whole = len(done) == planned
    count = (
        f"{len(done):,} trainings" if whole else f"{len(done):,} of {planned:,} planned trainings"
    )
    section.text(
        f"Top-1 on the test images{_WHOSE[experiment.weights]}; {count}, {seeds}"
        f" seed{'s'[: seeds != 1]}."
    )
    if missing:
        more = f" and {len(missing) - _NAMED:,} more" if len(missing) > _NAMED else ""
        names = ", ".join(missing[:_NAMED])
        section.text(f"This comparison is not finished: there is no result of {names}{more}.")
    if failed:
        section.long_texts(["failed", "error"], failed)


def _name(experiment: Experiment, cell: Cell) -> str:
    setting = experiment.setting(cell.setting)
    return f"{setting.group} {setting.label} seed {cell.seed}".strip()


def _said(experiment: Experiment, row: Standing) -> str:
    return "" if row.setting.label == experiment.baseline else reading(row, experiment.mode)


def _table(experiment: Experiment, rows: Sequence[Standing]) -> tuple[list[str], list[list[str]]]:
    interval = f"{_level(experiment.confidence)} interval"
    against = f"against {experiment.baseline}"
    heading = ["variant", "n", "top-1 %", "std", against, "pairs", interval, "reading", "seconds"]
    return [*heading, "changes"], [
        [
            row.setting.label,
            str(row.n),
            _of(row.mean),
            _of(row.std),
            _of(row.gain, "+.2f"),
            str(row.pairs) if row.pairs else "",
            f"{row.low:+.2f} to {row.high:+.2f}" if math.isfinite(row.low) else "",
            _said(experiment, row),
            _of(row.seconds, ".1f"),
            changes_text(row.setting),
        ]
        for row in rows
    ]


def changes_text(setting: Setting) -> str:
    """What a setting changes of the configuration, in words; the student has its own heading."""
    changes = {
        path: value for path, value in setting.changes.items() if path != "distill.student.name"
    }
    return setting_label(changes)


def _of(value: float | None, form: str = ".2f") -> str:
    return "" if value is None or not math.isfinite(value) else format(value, form)


def _level(confidence: float) -> str:
    """As it was asked for: 99.83% is not 100%."""
    return f"{100 * confidence:.6g}%"


def _metrics(
    section: Section, recorded: Recorded, cells: Sequence[Cell], damaged: Mapping[int, str]
) -> list[Metrics]:
    """The metrics of some trainings, those that can be read."""
    found = []
    for cell in cells:
        run = recorded.run(cell)
        if run is None or cell.number in damaged or cell.state == "failed":
            continue
        with left_out(section, f"the curve of {_name(recorded.experiment, cell)}"):
            found.append(read_metrics(run))
    return [metrics for metrics in found if metrics]
