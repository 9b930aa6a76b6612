"""Parallel coordinates: every trial as a line through its settings to its value."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from egapipe.pipeline.results.labels import short_name, value_names
from egapipe.stages.report.charts.colours import SHADES
from egapipe.stages.report.charts.curves import TEST_TOP1
from egapipe.stages.report.charts.figure import WIDTH, Figure, draw, hover, table
from egapipe.stages.report.charts.scales import is_number, round_values, wide
from egapipe.stages.report.charts.series import Series
from egapipe.stages.report.charts.sweep.trials import Trial
from egapipe.stages.report.names import shortened

_ABSENT = -0.16
_LISTED = 8
# Of a tick, from the next: closer ones would lie on each other.
_CLOSE = 0.06
_ROOM = 104


@dataclass(frozen=True)
class Scale:
    """One of the parallel axes. place: of a value, to 0..1. ticks: place -> text."""

    place: Callable[[Any], float]
    ticks: Mapping[float, str]


def parallel_figure(
    paths: Sequence[str], trials: Sequence[Trial], series: Series, metric: str, mode: str
) -> Figure:
    """Every trial as a line through its settings, `paths`, to its value.

    trials: those that have a value. series: of all trials. mode: of the metric, max or min.
    """
    scales = [scale([trial.changes.get(path) for trial in trials]) for path in paths]
    scales.append(scale([trial.value for trial in trials], listed=False))
    last = "top-1 %" if metric == TEST_TOP1 else short_name(metric)
    titles = [shortened(title, 16) for title in [*map(short_name, paths), last]]
    rows = [row for trial in trials for row in _line(trial, paths, scales)]
    caption = "A line a trial, from its settings to its value; the warmer, the better."
    if any(trial.cell.state != "done" for trial in trials):
        caption += " Dashed ones did not reach the last epoch."
    if any(row["place"] == _ABSENT for row in rows):
        caption += " A setting that a trial does not have is drawn below the others."
    chart = _chart(rows, titles, scales, metric, mode).add_params(*series.params())
    width = max(WIDTH, _ROOM * len(scales))
    return draw(
        "parallel",
        "Parallel coordinates",
        f"{caption} A choice in the table below isolates trials.",
        chart,
        size=(width, 300),
        series=series,
        least=_ROOM * len(scales) if len(scales) > 3 else 0,
    )


def scale(values: Sequence[Any], *, listed: bool = True) -> Scale:
    """The axis of a setting: a few values each at its own place, many numbers by size, or by
    logarithm over a wide range. Nothing is written that no trial has but round numbers between.

    A value of None is one that a trial does not have. listed: whether a few may be spread evenly.
    """
    known = [value for value in values if value is not None]
    absent = {_ABSENT: "not set"} if len(known) < len(values) else {}
    numbers = bool(known) and all(map(is_number, known))
    if numbers and len(set(known)) > (_LISTED if listed else 1):
        return _numbers([float(value) for value in known], absent, broad=listed)
    names = {_whole(v): text for v, text in zip(known, value_names(known), strict=True)}
    order = sorted(names, key=lambda text: (json.loads(text) if numbers else 0, names[text]))
    places = {text: _even(number, len(order)) for number, text in enumerate(order)}
    every = max(1, -(-len(order) // _LISTED))
    ticks = {places[text]: names[text] for text in order[::every]}
    return Scale(lambda v: _ABSENT if v is None else places[_whole(v)], {**absent, **ticks})


def _whole(value: Any) -> str:
    """A value as text that no other value has."""
    return json.dumps(value, sort_keys=True)


def _numbers(known: list[float], absent: Mapping[float, str], *, broad: bool) -> Scale:
    low, high = min(known), max(known)
    forward = math.log if broad and wide(known) else float
    first, span = forward(low), forward(high) - forward(low)

    def place(value: Any) -> float:
        return _ABSENT if value is None else (forward(float(value)) - first) / span

    ends = {0.0: f"{low:.3g}", 1.0: f"{high:.3g}"}
    between = {place(value): f"{value:g}" for value in round_values(known)}
    inner = {at: text for at, text in between.items() if _CLOSE < at < 1 - _CLOSE}
    return Scale(place, {**absent, **ends, **inner})


def _even(number: int, count: int) -> float:
    return number / (count - 1) if count > 1 else 0.5


def _line(trial: Trial, paths: Sequence[str], scales: Sequence[Scale]) -> list[dict[str, Any]]:
    values = [*(trial.changes.get(path) for path in paths), trial.value]
    return [
        {**trial.row(), "axis": axis, "place": round(one.place(value), 4)}
        for axis, (one, value) in enumerate(zip(scales, values, strict=True))
    ]


def _chart(
    rows: list[dict[str, Any]],
    titles: Sequence[str],
    scales: Sequence[Scale],
    metric: str,
    mode: str,
) -> Any:
    low = min(0.0, *(row["place"] for row in rows))
    last = len(scales) - 1
    x = alt.X("axis:Q", axis=None, scale=alt.Scale(domain=[-0.1, last + 0.45], nice=False))
    y = alt.Y("place:Q", axis=None, scale=alt.Scale(domain=[low - 0.05, 1.12], nice=False))
    shades = list(SHADES) if mode == "max" else list(reversed(SHADES))
    values = [row["value"] for row in rows]
    legend = alt.Legend(
        title=metric, type="gradient", orient="top", gradientLength=220, tickCount=4
    )
    scale = alt.Scale(range=shades, domain=[min(values), max(values)])
    colour = alt.Color("value:Q", scale=scale, legend=legend)
    base = alt.Chart(table(rows)).transform_calculate(name="whole[datum.series]")
    opacity = Series((), "").opacity(0.85)
    dash = alt.condition("datum.state === 'done'", alt.value([1, 0]), alt.value([4, 3]))
    lines = base.mark_line(interpolate="monotone", strokeWidth=1.8).encode(
        x=x, y=y, detail="series:N", color=colour, opacity=opacity, strokeDash=dash
    )
    shown = hover(("name", "trial"), ("state", ""), ("seed", "seed"), ("value", metric, ".4~g"))
    dots = base.mark_point(filled=True, size=90, opacity=0).encode(x=x, y=y, tooltip=shown)
    rules = (
        alt.Chart(table([{"axis": axis, "from": low, "to": 1.0} for axis in range(len(scales))]))
        .mark_rule(opacity=0.5)
        .encode(x=x, y=alt.Y("from:Q", axis=None), y2="to:Q")
    )
    ticks = [
        {"axis": axis, "place": place, "text": shortened(text, 14)}
        for axis, one in enumerate(scales)
        for place, text in one.ticks.items()
    ]
    heads = [{"axis": axis, "place": 1.09, "text": title} for axis, title in enumerate(titles)]
    words = alt.Chart(table(ticks)).mark_text(align="left", dx=6, fontSize=10)
    above = alt.Chart(table(heads)).mark_text(align="left", dx=-4, fontWeight="bold")
    texts = [one.encode(x=x, y=y, text="text:N") for one in (words, above)]
    return alt.layer(rules, lines, dots, *texts)
