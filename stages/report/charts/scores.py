"""The variants of a comparison: every training, and paired differences to the baseline."""

import math
from collections.abc import Sequence
from typing import Any

import altair as alt

from egapipe.pipeline.results.standing import Standing
from egapipe.stages.report.charts.colours import GREY
from egapipe.stages.report.charts.figure import WIDTH, Figure, draw, fitting, hover, table
from egapipe.stages.report.charts.series import Series
from egapipe.stages.report.names import shortened


def score_figure(
    name: str, title: str, found: Sequence[Standing], series: Series, metric: str
) -> Figure:
    """Every training as a point, and the means. series: of the variants, as in `found`."""
    points = [
        {"series": number, "seed": seed, "value": value}
        for number, standing in enumerate(found)
        for seed, value in standing.values.items()
    ]
    means = [
        {"series": number, "value": standing.mean, "n": standing.n}
        for number, standing in enumerate(found)
        if standing.n
    ]
    x = alt.X("value:Q", title=metric, scale=fitting())
    y = _rows(series, [standing.n for standing in found])
    look = {"x": x, "y": y, "color": series.colour()}
    dots = (
        _named(points)
        .mark_point(filled=True, size=55)
        .encode(
            **look,
            opacity=series.opacity(0.75),
            tooltip=hover(("name", "variant"), ("seed", "seed"), ("value", metric, ".2f")),
        )
    )
    bars = (
        _named(means)
        .mark_tick(thickness=3, size=18)
        .encode(
            **look,
            opacity=series.opacity(),
            tooltip=hover(("name", "variant"), ("n", "n"), ("value", "mean", ".2f")),
        )
    )
    caption = "A point a training, of which the numbers in brackets count; the bar is the mean."
    chart = alt.layer(dots, bars).add_params(*_params(series, [s.n for s in found]))
    return draw(name, title, caption, chart, size=_size(found), series=series, buttons=False)


def gain_figure(
    name: str, title: str, found: Sequence[Standing], series: Series, baseline: str, level: str
) -> Figure:
    """Paired differences to the baseline with their intervals. level: of these, in words."""
    rows = [
        {
            "series": number,
            "gain": standing.gain,
            "low": standing.low,
            "high": standing.high,
            "pairs": standing.pairs,
        }
        for number, standing in enumerate(found)
        if standing.pairs
    ]
    y = _rows(series, [standing.pairs for standing in found])
    shown = hover(
        ("name", "variant"),
        ("gain", "gain", "+.2f"),
        ("low", "from", "+.2f"),
        ("high", "to", "+.2f"),
        ("pairs", "pairs"),
    )
    title_x = f"against {shortened(baseline)}, points"
    x = alt.X("gain:Q", title=title_x, scale=alt.Scale(zero=True, nice=True))
    known = [row for row in rows if math.isfinite(row["low"])]
    lines = (
        _named(known)
        .mark_rule(strokeWidth=3)
        .encode(
            x=alt.X("low:Q", title=title_x),
            x2="high:Q",
            y=y,
            color=series.colour(),
            opacity=series.opacity(0.8),
            tooltip=shown,
        )
    )
    dots = (
        _named(rows)
        .mark_point(filled=True, size=80)
        .encode(x=x, y=y, color=series.colour(), opacity=series.opacity(), tooltip=shown)
    )
    nought = alt.Chart(table([{"gain": 0}])).mark_rule(color=GREY, strokeDash=[4, 3])
    caption = (
        f"Mean over seeds of the difference with the same seed; the line is the {level} interval "
        "of Student's t, of each difference alone, over as many pairs as stand beside its name."
    )
    chart = alt.layer(nought.encode(x="gain:Q"), lines, dots)
    chart = chart.add_params(*_params(series, [s.pairs for s in found]))
    return draw(name, title, caption, chart, size=_size(found), series=series, buttons=False)


def _named(rows: Sequence[dict[str, Any]]) -> Any:
    return alt.Chart(table(rows)).transform_calculate(name="whole[datum.series]")


def _rows(series: Series, counts: Sequence[int]) -> Any:
    """A row a variant, with its name and a count in brackets."""
    known = [number for number, count in enumerate(counts) if count]
    axis = alt.Axis(
        labelExpr="names[datum.value] + ' (' + counts[datum.value] + ')'",
        title=None,
        labelOverlap=False,
        ticks=False,
        domain=False,
        grid=True,
    )
    return alt.Y("series:O", scale=alt.Scale(domain=known), axis=axis)


def _params(series: Series, counts: Sequence[int]) -> list[Any]:
    return [*series.params(), alt.param(name="counts", value=list(counts))]


def _size(found: Sequence[Standing]) -> tuple[int, int]:
    return WIDTH, 40 + 24 * len(found)
