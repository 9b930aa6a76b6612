"""One setting of a sweep against its metric: numbers along an axis, words in rows."""

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from egapipe.pipeline.results.labels import value_names
from egapipe.pipeline.results.standing import Standing
from egapipe.pipeline.terminal.text import visible
from egapipe.stages.report.charts.colours import BLUE, ORANGE
from egapipe.stages.report.charts.figure import WIDTH, Figure, draw, fitting, hover, table
from egapipe.stages.report.charts.scales import is_number, round_values, wide
from egapipe.stages.report.charts.series import Series, named_axis
from egapipe.stages.report.charts.sweep.trials import Trial, axis_name, state_colour, trial_rows
from egapipe.stages.report.names import shortened

LISTED = 8
"""Most values that are written on an axis as they are."""


def setting_figure(
    name: str,
    path: str,
    trials: Sequence[Trial],
    found: Sequence[Standing],
    best: Standing | None,
    series: Series,
    metric: str,
) -> Figure:
    """A setting, by its dotted path, against the metric.

    trials: those that have a value and the setting. found: how the settings stand. best: of them.
    series: of all trials.
    """
    values = [trial.changes[path] for trial in trials]
    means = [
        _mean(standing, standing.setting.changes[path], standing is best)
        for standing in found
        if standing.n and path in standing.setting.changes
    ]
    title = f"{axis_name(path)} against {metric}"
    if numeric(values):
        chart = _numbers(path, trials, means, metric)
        size = (WIDTH, 250)
    else:
        names = _texts(values)
        chart = _words(path, trials, means, names, metric)
        size = (WIDTH, 40 + 34 * len(names))
    chart = chart.add_params(*_params(series, values))
    return draw(name, title, _caption(trials, means), chart, size=size, series=series)


def numeric(values: Sequence[Any]) -> bool:
    """Whether a setting's values are numbers, and not words or sections."""
    return bool(values) and all(map(is_number, values))


def _params(series: Series, values: Sequence[Any]) -> list[Any]:
    names, whole, only = series.params()
    if not numeric(values):
        names.param.value = [shortened(text) for text in _texts(values).values()]
    return [names, whole, only]


def _texts(values: Sequence[Any]) -> dict[str, str]:
    """A value as text that no other value has -> its text for people, in their order."""
    named = zip(map(_whole, values), value_names(values), strict=True)
    return dict(sorted(dict(named).items(), key=lambda item: item[1]))


def _whole(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _mean(standing: Standing, value: Any, best: bool) -> dict[str, Any]:
    """A setting's mean and spread over its seeds."""
    several = standing.n > 1
    return {
        "at": value,
        "value": standing.mean,
        "low": standing.mean - standing.std if several else standing.mean,
        "high": standing.mean + standing.std if several else standing.mean,
        "n": standing.n,
        "best": best,
        "label": visible(standing.setting.label),
    }


def _caption(trials: Sequence[Trial], means: Sequence[Mapping[str, Any]]) -> str:
    done = sum(trial.cell.state == "done" for trial in trials)
    text = f"A point a trial, {len(trials)} of them."
    if done < len(trials):
        text += (
            f" {len(trials) - done} did not reach the last epoch: their last value is hollow, "
            "at the edge where it is below those of the others."
        )
    if any(mean["n"] > 1 for mean in means):
        text += (
            " A bar is the mean over the seeds of a setting, its line one standard deviation to "
            "either side."
        )
    return text + (" The best is ringed." if any(mean["best"] for mean in means) else "")


_TRIAL = (
    ("name", "trial"),
    ("state", ""),
    ("seed", "seed"),
    ("epochs", "epochs"),
    ("value", "value", ".4~g"),
)
_MEAN = (
    ("label", "setting"),
    ("n", "n"),
    ("value", "mean", ".4~g"),
    ("low", "mean - std", ".4~g"),
    ("high", "mean + std", ".4~g"),
)


def _numbers(path: str, trials: Sequence[Trial], means: list[dict[str, Any]], metric: str) -> Any:
    values = sorted({float(trial.changes[path]) for trial in trials})
    broad = wide(values)
    ticks = values if len(values) <= LISTED else round_values(values) if broad else None
    kind = {"type": "log"} if broad else {"zero": False}
    scale = alt.Scale(nice=False, padding=12, **kind)
    axis = alt.Axis(format=".3~g", grid=False, labelOverlap="greedy")
    if ticks is not None:
        axis = alt.Axis(format=".3~g", grid=False, labelOverlap="greedy", values=ticks)
    x = alt.X("at:Q", title=axis_name(path), scale=scale, axis=axis)
    y = alt.Y("value:Q", title=metric, scale=fitting())
    drawn = alt.Y("drawn:Q", title=metric, scale=fitting())
    rows = [
        {**row, "at": float(trial.changes[path])}
        for row, trial in zip(trial_rows(trials), trials, strict=True)
    ]
    layers = _points(rows, trials, x, drawn)
    others = {_whole({**trial.changes, path: None}) for trial in trials}
    if len(others) == 1 and len(means) > 1:
        # Nothing else varies: the means are a curve of this setting.
        line = alt.Chart(table(sorted(means, key=lambda mean: mean["at"]))).mark_line(
            color=BLUE, opacity=0.5
        )
        layers.insert(0, line.encode(x=x, y=y))
    return alt.layer(*layers, *_spread(means, x, y), *_ring(means, x, y))


def _words(
    path: str,
    trials: Sequence[Trial],
    means: list[dict[str, Any]],
    names: Mapping[str, str],
    metric: str,
) -> Any:
    places = {text: place for place, text in enumerate(names)}
    rows = [
        {**row, "at": places[_whole(trial.changes[path])]}
        for row, trial in zip(trial_rows(trials), trials, strict=True)
    ]
    means = [{**mean, "at": places[_whole(mean["at"])]} for mean in means]
    scale = alt.Scale(domain=list(range(len(names))))
    y = alt.Y("at:O", scale=scale, axis=named_axis(axis_name(path), grid=True))
    x = alt.X("value:Q", title=metric, scale=fitting())
    # Of a word over everything else that varies.
    overall = []
    for place in range(len(names)):
        ended = [row["value"] for row in rows if row["at"] == place and row["state"] == "done"]
        if ended:
            mean = statistics.fmean(ended)
            overall.append({"at": place, "value": mean, "n": len(ended)})
    tick = (
        alt.Chart(table(overall))
        .transform_calculate(word="names[datum.at]")
        .mark_tick(thickness=3, size=22, color=BLUE)
        .encode(
            x=x,
            y=y,
            tooltip=hover(("word", axis_name(path)), ("n", "n"), ("value", "mean", ".4~g")),
        )
    )
    drawn = alt.X("drawn:Q", title=metric, scale=fitting())
    ticks = [tick] if overall else []
    return alt.layer(*_points(rows, trials, drawn, y), *ticks, *_ring(means, x, y))


def _points(rows: list[dict[str, Any]], trials: Sequence[Trial], x: Any, y: Any) -> list[Any]:
    """Trials to their last epoch filled, others hollow."""
    base = alt.Chart(table(rows)).transform_calculate(name="whole[datum.series]")
    faint = Series((), "").opacity(0.75)
    look = {"x": x, "y": y, "color": state_colour(trials), "opacity": faint}
    marks = []
    if any(row["state"] != "done" for row in rows):
        others = base.transform_filter("datum.state !== 'done'")
        marks.append(others.mark_point(size=40, strokeWidth=1.5))
    if any(row["state"] == "done" for row in rows):
        done = base.transform_filter("datum.state === 'done'")
        marks.append(done.mark_point(filled=True, size=45))
    return [mark.encode(**look, tooltip=hover(*_TRIAL)) for mark in marks]


def _spread(means: list[dict[str, Any]], x: Any, y: Any) -> list[Any]:
    """Means of several seeds with their spread."""
    several = [mean for mean in means if mean["n"] > 1]
    if not several:
        return []
    base, shown = alt.Chart(table(several)), hover(*_MEAN)
    rule = base.mark_rule(color=BLUE, strokeWidth=2).encode(
        x=x, y="low:Q", y2="high:Q", tooltip=shown
    )
    bar = base.mark_tick(color=BLUE, thickness=3, size=14, orient="horizontal").encode(
        x=x, y=y, tooltip=shown
    )
    return [rule, bar]


def _ring(means: list[dict[str, Any]], x: Any, y: Any) -> list[Any]:
    """Around the best."""
    best = [mean for mean in means if mean["best"]]
    ring = alt.Chart(table(best)).mark_point(color=ORANGE, size=220, strokeWidth=2.5)
    return [ring.encode(x=x, y=y, tooltip=hover(*_MEAN))] if best else []
