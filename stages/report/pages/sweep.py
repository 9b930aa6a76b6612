"""The page of a sweep, also of one that is still running."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.mathematics.importance import FEWEST, importance
from egapipe.pipeline.results.experiment import Experiment, Recorded, State
from egapipe.pipeline.results.labels import short_name, short_value, value_names
from egapipe.pipeline.results.learned import require_one_source
from egapipe.pipeline.results.standing import Standing, leading, standings
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.pipeline.terminal.text import visible
from egapipe.stages.distill.data.rows.choice import ON_TEST
from egapipe.stages.report.charts.curves import ACCURACY, TEST_TOP1, trial_curves
from egapipe.stages.report.charts.figure import Figure
from egapipe.stages.report.charts.series import Series
from egapipe.stages.report.charts.sweep.parallel import parallel_figure
from egapipe.stages.report.charts.sweep.progress import best_figure, importance_figure
from egapipe.stages.report.charts.sweep.settings import numeric, setting_figure
from egapipe.stages.report.charts.sweep.trials import LAMBDA, Trial, axis_name, series_of, trials_of
from egapipe.stages.report.pages.document import Section
from egapipe.stages.report.parts import damaged_cells, left_out
from egapipe.stages.report.provenance import provenance

_STATES: tuple[State, ...] = ("done", "stopped", "running", "failed", "planned")


def sweep_sections(recorded: Recorded) -> list[Section]:
    """Best setting, settings against the metric, importance, curves, parallel coordinates, tables
    and provenance.

    A trial whose record of features is damaged counts as failed: it may be of others. Raises
    UsageError if there is none, or if trials learned from different features. What cannot be drawn
    is left out with a line.
    """
    folder = recorded.folder
    if not recorded.experiment.cells:
        raise UsageError(
            f"{folder.where} has no trial yet: `egapipe sweep` with its configuration begins"
        )
    results, last = Section("Results"), Section("Provenance")
    damaged = damaged_cells(results, recorded)
    # Trials that are not comparable are no part that can be missing.
    require_one_source(
        {
            str(cell.run): run
            for cell in recorded.experiment.cells
            if cell.number not in damaged and (run := recorded.run(cell))
        }
    )
    with left_out(results, "the results"):
        _add_results(results, recorded, _without(recorded.experiment, damaged))
    with left_out(last, "the provenance"):
        last = provenance(folder.config(), folder.summary() if folder.finished else None)
    if folder.has("best.yaml"):
        with left_out(last, "best.yaml"):
            last.code("best.yaml", folder.read("best.yaml").decode("utf-8"))
    return [results, last]


def _without(experiment: Experiment, reasons: Mapping[int, str]) -> Experiment:
    """The experiment as if some trials had failed: number -> why it does not count."""
    cells = tuple(
        cell.model_copy(update={"state": "failed", "value": None, "error": reasons[cell.number]})
        if cell.number in reasons
        else cell
        for cell in experiment.cells
    )
    return experiment.model_copy(update={"cells": cells})


def _add_results(section: Section, recorded: Recorded, experiment: Experiment) -> None:
    trials = trials_of(experiment)
    series = series_of(trials)
    found = standings(experiment)
    best = leading(experiment, found)
    section.text(_headline(experiment, best))
    known = [trial for trial in trials if trial.cell.value is not None]
    paths = list(dict.fromkeys(path for trial in trials for path in trial.changes))
    varying = [path for path in paths if _varies(path, known)]
    # The paper's lambda before all others.
    varying.sort(key=lambda path: not path.endswith(LAMBDA))
    metric = TEST_TOP1 if experiment.metric == ACCURACY else experiment.metric
    figures: list[Figure | None] = []
    for number, path in enumerate(varying):
        with left_out(section, f"{path} against {experiment.metric}"):
            having = [trial for trial in known if path in trial.changes]
            figures.append(
                setting_figure(f"setting-{number}", path, having, found, best, series, metric)
            )
    done = [trial for trial in known if trial.cell.state == "done"]
    if len(done) > 1:
        with left_out(section, "the best so far"):
            figures.append(best_figure(known, series, metric, experiment.mode))
    shares = _importance(section, done, varying)
    if shares:
        figures.append(importance_figure(shares, len(done)))
    if varying:
        # The lambda, or else what mattered most.
        first = varying[0]
        coloured = first if first.endswith(LAMBDA) else next(iter(shares), first)
        figures.append(_curves(section, recorded, known, series, coloured))
    if known and paths:
        with left_out(section, "the parallel coordinates"):
            figures.append(parallel_figure(paths, known, series, metric, experiment.mode))
    drawn = [figure for figure in figures if figure is not None]
    section.figure(*(figure for figure in drawn if not figure.wide))
    section.figure(*(figure for figure in drawn if figure.wide))
    _add_tables(section, experiment, trials, found, best, paths)


def _importance(
    section: Section, done: Sequence[Trial], varying: Sequence[str]
) -> dict[str, float]:
    if len(varying) < 2:
        return {}
    if len(done) < FEWEST:
        section.text(
            f"{len(done)} trials reached the last epoch: too few to say which setting mattered."
        )
        return {}
    with left_out(section, "which setting mattered"):
        return importance([trial.changes for trial in done], [trial.value for trial in done])
    return {}


def _curves(
    section: Section, recorded: Recorded, known: Sequence[Trial], series: Series, path: str
) -> Figure | None:
    """Learning curves of the trials whose folders are still there."""
    having = [trial.changes.get(path) for trial in known]
    if not numeric([value for value in having if value is not None]):
        texts = iter(value_names([value for value in having if value is not None]))
        having = [None if value is None else visible(next(texts)) for value in having]
    curves: list[list[dict[str, Any]]] = [[] for _ in series.names]
    of: list[Any] = [None for _ in series.names]
    gone = []
    for trial, value in zip(known, having, strict=True):
        run = recorded.run(trial.cell)
        if run is None or not run.has("metrics.jsonl"):
            gone.append(str(trial.cell.number))
            continue
        with left_out(section, f"the curve of trial {trial.cell.number}"):
            curves[trial.place] = read_metrics(run)
            of[trial.place] = value
    if gone:
        section.text(
            f"The folders of these trials are gone, and their curves with them: {', '.join(gone)}."
        )
    with left_out(section, "the curves"):
        return trial_curves(curves, series, axis_name(path), of)
    return None


def _headline(experiment: Experiment, best: Standing | None) -> str:
    counts = experiment.counts
    many = ", ".join(f"{counts[state]:,} {state}" for state in _STATES if counts[state])
    planned = max(experiment.planned, len(experiment.cells))
    text = f"{planned:,} trials ({many}), at most {experiment.concurrent} at once."
    if not experiment.finished:
        text += " This sweep is not finished: what is here is so far."
    if best is None:
        return f"{text} None reached its last epoch."
    over = f"over {best.n} seed{'s'[: best.n != 1]}"
    return (
        f"{text} The best is {best.setting.label}: {experiment.metric} {best.mean:.4g} {over}."
        + (" One seed says nothing of chance." if best.n == 1 else "")
        + (f" It was {ON_TEST}." if experiment.metric.startswith("test/") else "")
    )


def _add_tables(
    section: Section,
    experiment: Experiment,
    trials: Sequence[Trial],
    found: Sequence[Standing],
    best: Standing | None,
    paths: Sequence[str],
) -> None:
    sign = -1 if experiment.mode == "max" else 1
    if len({trial.cell.seed for trial in trials}) > 1:
        section.heading("Settings over seeds")
        section.text(
            "Trials that differ in the seed alone are one setting, with n of them. A setting of "
            "one trial says nothing of chance."
        )
        order = sorted(found, key=lambda s: (not s.n, sign * s.mean if s.n else 0.0))
        section.table(
            ["setting", "n", f"mean {experiment.metric}", "std"],
            [[row.setting.label, str(row.n), _number(row.mean), _number(row.std)] for row in order],
            best=[] if best is None else [order.index(best)],
        )
    section.heading("Trials")
    ranked = sorted(
        trials,
        key=lambda t: (
            _STATES.index(t.cell.state),
            t.cell.value is None,
            sign * (t.cell.value or 0.0),
        ),
    )
    marked = [
        place
        for place, trial in enumerate(ranked)
        if best is not None and trial.setting == best.setting
    ]
    heading = ["trial", *map(short_name, paths), "seed", "state", "epochs", experiment.metric]
    state = len(paths) + 2
    texts = {0, state, *(1 + i for i, path in enumerate(paths) if not _all_numbers(path, trials))}
    section.table(
        heading,
        [_row(trial, paths) for trial in ranked],
        texts=texts,
        best=marked,
        series=Series(tuple(str(t.cell.number) for t in ranked), "trials", coloured=False),
        numbers=[trial.place for trial in ranked],
    )
    errors = [(trial.cell.number, trial.cell.error) for trial in trials if trial.cell.error]
    if errors:
        section.heading("Errors")
        section.long_texts(["trial", "error"], errors)


def _row(trial: Trial, paths: Sequence[str]) -> list[str]:
    cell, changes = trial.cell, trial.changes
    values = ["" if path not in changes else short_value(changes[path]) for path in paths]
    epochs = f"{cell.epoch} of {cell.epochs}"
    return [str(cell.number), *values, str(cell.seed), cell.state, epochs, _number(cell.value)]


def _number(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else short_value(float(value))


def _all_numbers(path: str, trials: Sequence[Trial]) -> bool:
    return numeric([trial.changes[path] for trial in trials if path in trial.changes])


def _varies(path: str, trials: Sequence[Trial]) -> bool:
    """Whether trials that have a value differ in a setting."""
    return len({repr(t.changes[path]) for t in trials if path in t.changes}) > 1
