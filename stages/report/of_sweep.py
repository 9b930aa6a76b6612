"""The page of a sweep."""

import math
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.results.learned import require_one_source
from egapipe.pipeline.results.runs import RunFolder
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.stages.distill.data.choice import ON_TEST
from egapipe.stages.report.curves import ACCURACY, TEST_TOP1, trial_curves
from egapipe.stages.report.figure import COLOURS, GREY, Figure, draw, logarithmic
from egapipe.stages.report.page import Section
from egapipe.stages.report.parallel import (
    Trial,
    heights,
    is_number,
    parallel_figure,
    short,
    shown,
)
from egapipe.stages.report.parts import left_out, left_out_runs
from egapipe.stages.report.provenance import provenance

SEED = "distill.seed"
_STATUS = {"finished": COLOURS[0], "stopped": GREY, "failed": COLOURS[3]}


def sweep_sections(path: Path) -> list[Section]:
    """Best trial, settings against the metric, parallel coordinates, table, curves, provenance.

    A trial whose record of features is damaged counts as failed: it may be of others. Raises
    UsageError if the sweep is not finished, or its trials learned from different features. What
    cannot be drawn is left out with a line.
    """
    folder = RunFolder(path)
    if not folder.finished:
        raise UsageError(f"sweep {path} is not finished: run the same `egapipe sweep` again first")
    summary, config = folder.summary(), folder.config()
    results, section = Section("Results"), Section("Provenance")
    runs: dict[str, RunFolder] = {}
    with left_out(results, "the trials"):
        runs = {t["run"]: run for t in summary["trials"] if (run := _run(path, t))}
    damaged = left_out_runs(results, runs)
    # Trials that are not comparable are no part that can be missing.
    require_one_source({name: run for name, run in runs.items() if name not in damaged})
    with left_out(results, "the results"):
        summary = _without(summary, damaged)
        _add_results(results, path, summary)
    with left_out(section, "the provenance"):
        section = provenance(config, summary)
    if (path / "best.yaml").is_file():
        with left_out(section, "best.yaml"):
            section.code("best.yaml", (path / "best.yaml").read_text("utf-8"))
    return [results, section]


def _without(summary: dict[str, Any], reasons: Mapping[str, str]) -> dict[str, Any]:
    """The summary as if some trials had failed: run -> why it does not count."""
    trials = [
        {**trial, "status": "failed", "value": None, "error": reasons[trial["run"]]}
        if trial["run"] in reasons
        else trial
        for trial in summary["trials"]
    ]
    return {**summary, "trials": trials}


def _run(path: Path, trial: Trial) -> RunFolder | None:
    """A trial's run, if its folder is still there."""
    return RunFolder(path / trial["run"]) if (path / trial["run"]).is_dir() else None


def _add_results(section: Section, path: Path, summary: Mapping[str, Any]) -> None:
    trials = _ranked(summary)
    section.text(_headline(summary))
    if summary.get("verdict"):
        section.text(f"The best settings: {summary['verdict']}.")
    _add_unfinished(section, summary)
    names = list(dict.fromkeys(name for trial in trials for name in trial["changes"]))
    known = [trial for trial in trials if _has_value(trial)]
    figures: list[Figure | None] = []
    for number, name in enumerate(name for name in names if _varies(name, known)):
        with left_out(section, f"{name} against {summary['metric']}"):
            figures.append(_scatter(f"setting-{number}", name, known, summary["metric"]))
    there = [trial for trial in known if _run(path, trial)]
    if len(there) < len(known):
        gone = ", ".join(str(t["number"]) for t in known if t not in there)
        section.text(f"The folders of these trials are gone, and their curves with them: {gone}.")
    curves, drawn_trials = [], []
    for trial in there:
        with left_out(section, f"the curve of trial {trial['number']}"):
            curves.append(read_metrics(RunFolder(path / trial["run"])))
            drawn_trials.append(trial)
    if curves:
        with left_out(section, "the curves"):
            figures.append(trial_curves(curves, heights(drawn_trials, summary["mode"])))
    if known and names:
        with left_out(section, "the parallel coordinates"):
            figures.append(parallel_figure(names, known, summary["metric"], summary["mode"]))
    drawn = [figure for figure in figures if figure is not None]
    section.figure(*(figure for figure in drawn if not figure.wide))
    section.figure(*(figure for figure in drawn if figure.wide))
    if any(SEED in trial["changes"] for trial in trials):
        section.heading("Settings over seeds")
        section.text(
            "Trials that differ in the seed alone are one setting, with n of them. A setting of "
            "one trial says nothing of chance."
        )
        section.table(*_settings_table(trials, summary))
    section.heading("Trials")
    best = next((i for i, trial in enumerate(trials) if trial["number"] == summary["best"]), None)
    section.table(*_table(names, trials, summary["metric"]), best=[] if best is None else [best])
    errors = [(trial["number"], trial["error"]) for trial in trials if trial["error"]]
    if errors:
        section.heading("Errors")
        section.long_texts(["trial", "error"], errors)


def _headline(summary: Mapping[str, Any]) -> str:
    trials = summary["trials"]
    counts = {s: sum(t["status"] == s for t in trials) for s in _STATUS}
    many = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    text = f"{len(trials)} trials ({many}), at most {summary['concurrent']} at once."
    best = next((t for t in trials if t["number"] == summary["best"]), None)
    if best is None:
        return f"{text} None reached its last epoch."
    if best["status"] == "failed":
        return f"{text} The best, trial {best['number']}, is left out."
    settings = ", ".join(f"{short(k)} {shown(v)}" for k, v in best["changes"].items())
    return (
        f"{text} The best is trial {best['number']}: {settings}; {summary['metric']} "
        f"{shown(best['value'])}."
        + (f" It was {ON_TEST}." if summary["metric"].startswith("test/") else "")
    )


def _scatter(name: str, setting: str, trials: Sequence[Trial], metric: str) -> Figure:
    """One setting against the metric."""
    having = [trial for trial in trials if setting in trial["changes"]]
    caption = f"A point a trial, {len(having)} of them."
    if any(trial["status"] == "stopped" for trial in having):
        caption += " Grey ones were stopped early."
    paint = partial(_paint_scatter, setting=setting, trials=having, metric=metric)
    return draw(name, f"{short(setting)} against {metric}", caption, paint)


def _paint_scatter(axes: Any, setting: str, trials: Sequence[Trial], metric: str) -> None:
    for status, colour in _STATUS.items():
        mine = [trial for trial in trials if trial["status"] == status]
        x = [float(trial["changes"][setting]) for trial in mine]
        if mine:
            y = [trial["value"] for trial in mine]
            axes.scatter(x, y, color=colour, label=status, s=32, linewidths=0, alpha=0.9)
    logarithmic(axes.xaxis, [float(trial["changes"][setting]) for trial in trials])
    axes.set(xlabel=_axis_label(setting), ylabel=TEST_TOP1 if metric == ACCURACY else metric)
    axes.margins(0.06)
    if len({trial["status"] for trial in trials}) > 1:
        axes.legend()


def _axis_label(setting: str) -> str:
    """The paper's name for the weight of an objective, and ours."""
    name = short(setting)
    return f"lambda ({name})" if name.endswith(".weight") else name


def _table(
    names: Sequence[str], trials: Sequence[Trial], metric: str
) -> tuple[list[str], list[list[str]]]:
    heading = ["trial", *(short(name) for name in names), "status", "epochs", metric]
    lines = [
        [
            str(trial["number"]),
            *(shown(trial["changes"].get(name)) for name in names),
            trial["status"],
            str(trial["epochs"]),
            shown(trial["value"]),
        ]
        for trial in trials
    ]
    return heading, lines


def _ranked(summary: Mapping[str, Any]) -> list[Trial]:
    """Finished trials first, the best first, those without a value last."""
    sign, order = -1 if summary["mode"] == "max" else 1, list(_STATUS)
    return sorted(
        summary["trials"],
        key=lambda t: (
            order.index(t["status"]),
            not _has_value(t),
            sign * t["value"] if _has_value(t) else 0.0,
        ),
    )


def _add_unfinished(section: Section, summary: Mapping[str, Any]) -> None:
    """What was planned and is not there, where the sweep recorded it."""
    planned = summary.get("planned")
    count = planned if isinstance(planned, int) else len(planned or [])
    if count > len(summary["trials"]):
        section.text(
            f"This sweep is not finished: {count:,} trials were planned, "
            f"{len(summary['trials']):,} are here."
        )


def _settings_table(
    trials: Sequence[Trial], summary: Mapping[str, Any]
) -> tuple[list[str], list[list[str]]]:
    """Trials by their settings without the seed, the best mean first."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        rest = {name: value for name, value in trial["changes"].items() if name != SEED}
        text = ", ".join(f"{short(name)} {shown(value)}" for name, value in rest.items())
        groups.setdefault(text or "as configured", []).append(trial)
    found = {
        name: [t["value"] for t in mine if t["status"] == "finished" and _has_value(t)]
        for name, mine in groups.items()
    }
    sign = -1 if summary["mode"] == "max" else 1
    order = sorted(found, key=lambda k: sign * statistics.fmean(found[k]) if found[k] else math.inf)
    return ["settings", "n", f"mean {summary['metric']}", "std"], [
        [
            name,
            str(len(found[name])),
            shown(statistics.fmean(found[name])) if found[name] else "",
            shown(statistics.stdev(found[name])) if len(found[name]) > 1 else "",
        ]
        for name in order
    ]


def _has_value(trial: Trial) -> bool:
    return trial["value"] is not None and math.isfinite(trial["value"])


def _varies(name: str, trials: Sequence[Trial]) -> bool:
    values = [t["changes"][name] for t in trials if name in t["changes"]]
    return all(map(is_number, values)) and len(set(values)) > 1
