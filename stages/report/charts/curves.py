"""Learning curves of one run or of many."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np

from egapipe.stages.report.charts.colours import SHADES, palette
from egapipe.stages.report.charts.figure import Figure, draw, fitting, hover, table
from egapipe.stages.report.charts.scales import is_number, round_values, wide
from egapipe.stages.report.charts.series import Series

Metrics = list[dict[str, Any]]
"""The epochs of a run, as in metrics.jsonl."""

ACCURACY = "test/top1"
VALIDATION = "validation/top1"
TEST_TOP1 = "top-1 on the test images, %"
# Of a figure, the points that say something under the pointer, and those of a line among many.
_HOVERED, _OF_MANY, _MANY = 1500, 100, 20
_LISTED, _FEW, _SEEN = 8, 8, 4
# Of the axis, what a cut has to save.
_WORTH = 0.2


def run_curve(
    name: str,
    title: str,
    caption: str,
    metrics: Metrics,
    lines: Mapping[str, str],
    unit: str,
    *,
    bounded: bool = False,
) -> Figure | None:
    """Some metrics of one run by epoch. lines: text -> name of the metric. None without any.

    bounded: they have a largest value, near which a logarithm would show nothing.
    """
    known = {text: values(metrics, of) for text, of in lines.items()}
    known = {text: of for text, of in known.items() if np.isfinite(of).any()}
    if not known:
        return None
    series = Series(tuple(known), name)
    epochs = [line["epoch"] + 1 for line in metrics]
    rows = [
        {"series": number, "epoch": epoch, "value": value}
        for number, of in enumerate(known.values())
        for epoch, value in zip(epochs, of.tolist(), strict=True)
        if math.isfinite(value)
    ]
    positive = all(row["value"] > 0 for row in rows)
    broad = positive and not bounded and wide([row["value"] for row in rows])
    chart = _lines(rows, series, unit, broad, from_half=False)
    return draw(name, title, caption, chart, series=series)


def group_curves(
    name: str, title: str, groups: Sequence[Sequence[Metrics]], series: Series
) -> Figure | None:
    """Test accuracy by epoch, a line a group: the mean of its runs, and the range of them.

    series: of the groups, in order. None if no run has any.
    """
    rows = [
        {"series": number, **row}
        for number, runs in enumerate(groups)
        for row in _means(_table(runs))
    ]
    if not rows:
        return None
    caption = "A line is the mean of runs; where there are several, the band has all of them."
    caption += _CUT if _cut(rows) else ""
    unit = _top1([m for runs in groups for m in runs])
    return draw(name, title, caption, _lines(rows, series, unit), series=series)


def trial_curves(
    trials: Sequence[Metrics], series: Series, setting: str, of: Sequence[Any]
) -> Figure | None:
    """Test accuracy by epoch, a line a trial, coloured by a setting.

    series: of the trials, in order. of: value of the setting of each; None where it has none. None
    if no trial has any accuracy.
    """
    rows: list[dict[str, Any]] = []
    for number, (metrics, value) in enumerate(zip(trials, of, strict=True)):
        line = _accuracy(metrics)
        every = -(-len(line) // _OF_MANY) if len(trials) > _MANY else 1
        rows += [
            {"series": number, "epoch": epoch + 1, "value": float(line[epoch]), "setting": value}
            for epoch in range(len(line))
            if math.isfinite(line[epoch]) and (epoch % every == 0 or epoch == len(line) - 1)
        ]
    if not rows:
        return None
    colour = setting_colour(setting, of)
    shown = hover(("name", "trial"), ("setting", setting), ("epoch", "epoch"), _value(""))
    chart = _layers(rows, colour, series.opacity(0.9), shown, _top1(trials))
    caption = f"A line a trial, coloured by {setting}. A choice in the table below isolates trials."
    caption += _CUT if _cut(rows) else ""
    return draw(
        "curves", "Learning curves", caption, chart.add_params(*series.params()), series=series
    )


def setting_colour(setting: str, of: Sequence[Any]) -> Any:
    """The encoding of a colour by the field `setting`: numbers by a scale, words by one each."""
    known = [value for value in of if value is not None]
    if known and all(map(is_number, known)) and len(set(known)) > 1:
        kind = "log" if wide(known) else "linear"
        values = sorted(set(known)) if len(set(known)) <= _LISTED else round_values(known)
        legend = alt.Legend(
            title=setting,
            type="gradient",
            orient="top",
            gradientLength=220,
            format=".3~g",
            values=values,
        )
        return alt.Color("setting:Q", scale=alt.Scale(range=list(SHADES), type=kind), legend=legend)
    words = list(dict.fromkeys(map(str, known)))
    scale = alt.Scale(domain=words, range=palette(len(words)))
    legend = alt.Legend(title=setting, orient="top", columns=2, labelLimit=150)
    return alt.Color("setting:N", scale=scale, legend=legend)


def values(metrics: Metrics, name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """float64 [epochs]; NaN where an epoch has none."""
    return np.array([line.get(name, math.nan) for line in metrics], dtype=float)


def _lines(
    rows: list[dict[str, Any]],
    series: Series,
    unit: str,
    broad: bool = False,
    *,
    from_half: bool = True,
) -> Any:
    shown = hover(("name", "line"), ("epoch", "epoch"), _value(unit))
    chart = _layers(
        rows, series.colour(), series.opacity(), shown, unit, broad, from_half=from_half
    )
    if any("low" in row for row in rows):
        # The lines' own: of two scales the wider one would count.
        cut = from_half and _cut(rows)
        scale = alt.Scale(domain=cut) if cut else fitting()
        band = (
            alt.Chart(table(rows))
            .mark_area(clip=True)
            .encode(
                x="epoch:Q",
                y=alt.Y("low:Q", scale=scale),
                y2="high:Q",
                color=series.colour(),
                opacity=series.opacity(0.16),
            )
        )
        chart = band + chart
    return chart.add_params(*series.params())


def _layers(
    rows: list[dict[str, Any]],
    colour: Any,
    opacity: Any,
    shown: Any,
    unit: str,
    broad: bool = False,
    *,
    from_half: bool = True,
) -> Any:
    """Lines, and points that answer to the pointer: a line has one answer for all of it."""
    last = max(row["epoch"] for row in rows)
    heights = [row["value"] for row in rows]
    cut = from_half and _cut(rows)
    up = (
        alt.Y(
            "value:Q",
            title=unit,
            scale=alt.Scale(type="log", nice=False),
            axis=alt.Axis(values=round_values(heights), format="~g"),
        )
        if broad
        else alt.Y("value:Q", title=unit, scale=alt.Scale(domain=cut) if cut else fitting())
    )
    line = (
        alt.Chart(table(rows))
        .mark_line(clip=True)
        .encode(
            x=alt.X(
                "epoch:Q",
                title="epoch",
                scale=alt.Scale(domain=[1, max(2, last)], nice=False),
                axis=_epochs(last),
            ),
            y=up,
            color=colour,
            detail="series:N",
            opacity=opacity,
        )
    )
    every = -(-len(rows) // _HOVERED)
    kept = [row for place, row in enumerate(rows) if place % every == 0 or row["epoch"] == last]
    point = (
        alt.Chart(table(kept))
        .transform_calculate(name="whole[datum.series]")
        .encode(x="epoch:Q", y="value:Q", detail="series:N", tooltip=shown)
    )
    if last < _SEEN:
        # A line of few points would not be seen without them.
        return line + point.mark_point(filled=True, clip=True, size=22).encode(
            color=colour, opacity=opacity
        )
    return line + point.mark_point(filled=True, clip=True, size=60, opacity=0)


def _epochs(last: int) -> Any:
    """The axis of epochs; between few of them there would be halves, written as whole ones."""
    every: Any = list(range(1, max(2, last) + 1)) if last <= _FEW else alt.Undefined
    return alt.Axis(values=every, tickMinStep=1, format="d", grid=False)


_CUT = " The axis begins where the second half of the epochs does: what lies below is cut off."


def _cut(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """The ends of an axis on which lines that end close together can be told apart: of the second
    half of many epochs; none of few."""
    last = max(row["epoch"] for row in rows)
    ends = [row.get(name, row["value"]) for row in rows for name in ("low", "high")]
    high = max(ends)
    later = [
        row.get(name, row["value"])
        for row in rows
        if row["epoch"] > last / 2
        for name in ("low", "high")
    ]
    if last < _FEW or not later or min(later) - min(ends) < _WORTH * (high - min(ends)):
        return []
    room = 0.04 * (high - min(later))
    return [min(later) - room, high + room]


def _value(unit: str) -> tuple[str, str, str]:
    return "value", unit or "value", ".4~g"


def _means(table: np.ndarray[Any, np.dtype[np.float64]]) -> list[dict[str, Any]]:
    """Mean by epoch, and the range where there are several runs. table: float64 [runs, epochs]."""
    rows = []
    for epoch in range(table.shape[1]):
        of = table[:, epoch][np.isfinite(table[:, epoch])].tolist()
        if not of:
            continue
        row = {"epoch": epoch + 1, "value": sum(of) / len(of)}
        rows.append(row if len(table) == 1 else {**row, "low": min(of), "high": max(of)})
    return rows


def _accuracy(metrics: Metrics) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Of each epoch on the test images, or, where those are measured at the end, the validation."""
    return values(metrics, VALIDATION if any(VALIDATION in m for m in metrics) else ACCURACY)


def _top1(runs: Sequence[Metrics]) -> str:
    """Of which images `_accuracy` is."""
    validated = any(VALIDATION in line for metrics in runs for line in metrics)
    return TEST_TOP1.replace("test", "validation") if validated else TEST_TOP1


def _table(runs: Sequence[Metrics]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """float64 [runs, epochs] of those that have test accuracy."""
    lines = [_accuracy(run) for run in runs]
    lines = [line for line in lines if np.isfinite(line).any()]
    length = max((len(line) for line in lines), default=0)
    padded = [np.pad(line, (0, length - len(line)), constant_values=math.nan) for line in lines]
    return np.array(padded).reshape(len(lines), length)
