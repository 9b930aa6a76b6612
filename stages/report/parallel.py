"""Parallel coordinates: every trial as a line through its settings to its value."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

from egapipe.pipeline.results.labels import short_value, value_names
from egapipe.stages.report.curves import shade
from egapipe.stages.report.figure import GREY, WIDTH, Figure, draw
from egapipe.stages.report.names import shortened

Trial = Mapping[str, Any]
"""A trial of a sweep's summary.json."""
_ABSENT = -0.16
_MOST_TICKS = 8
_STEPS = 24


@dataclass(frozen=True)
class Scale:
    """One of the parallel axes. place: of a value, to 0..1. ticks: place -> text."""

    place: Callable[[Any], float]
    ticks: Mapping[float, str]


def parallel_figure(
    names: Sequence[str], trials: Sequence[Trial], metric: str, mode: str
) -> Figure:
    """Every trial as a line through its settings, `names`, to its value.

    trials: those that have a value. mode: of the metric, max or min.
    """
    scales = {name: scale([t["changes"].get(name) for t in trials]) for name in names}
    last = scale([trial["value"] for trial in trials], wide=False)
    lines = [
        [*(scales[name].place(t["changes"].get(name)) for name in names), last.place(t["value"])]
        for t in trials
    ]
    caption = "A line a trial, from its settings to its value; the warmer, the better."
    if any(_ABSENT in line for line in lines):
        caption += " A setting that a trial does not have is drawn below the others."
    paint = partial(
        _paint,
        titles=[short(name) for name in [*names, metric]],
        scales=[*scales.values(), last],
        lines=lines,
        goodness=heights(trials, mode),
    )
    width = max(WIDTH, 1.2 * (len(names) + 1))
    return draw("parallel", "Parallel coordinates", caption, paint, size=(width, 3.6))


def heights(trials: Sequence[Trial], mode: str) -> list[float]:
    """How good each trial is, from 0, the worst, to 1."""
    values = [float(trial["value"]) for trial in trials]
    low, span = min(values), (max(values) - min(values)) or 1.0
    places = [(value - low) / span for value in values]
    return places if mode == "max" else [1 - place for place in places]


def scale(values: Sequence[Any], *, wide: bool = True) -> Scale:
    """The axis of a setting: numbers by size, or by logarithm over a `wide` range; others by place.

    A value of None is one that a trial does not have.
    """
    known = [value for value in values if value is not None]
    absent = {_ABSENT: "not set"} if len(known) < len(values) else {}
    if known and all(map(is_number, known)) and len(set(known)) > 1:
        return _numbers([float(value) for value in known], absent, wide)
    names = {whole(v): text for v, text in zip(known, value_names(known), strict=True)}
    order = sorted(names.values())
    places = {text: _even(number, len(order)) for number, text in enumerate(order)}
    every = -(-len(order) // _MOST_TICKS)
    ticks = {place: text for text, place in list(places.items())[::every]}
    return Scale(lambda v: _ABSENT if v is None else places[names[whole(v)]], {**absent, **ticks})


def whole(value: Any) -> str:
    """A value as text that no other value has."""
    return json.dumps(value, sort_keys=True)


def short(path: str) -> str:
    """A setting without the sections that all of them share."""
    return path.removeprefix("distill.").removeprefix("objective.")


def shown(value: Any) -> str:
    """A value in a few characters, as the command's table has it."""
    return "" if value is None else short_value(value)


def is_number(value: Any) -> bool:
    """Whether it can be drawn on an axis of numbers."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _numbers(known: list[float], absent: Mapping[float, str], wide: bool) -> Scale:
    low, high = min(known), max(known)
    wide = wide and low > 0 and high > 10 * low
    forward, back = (math.log, math.exp) if wide else (float, float)
    first, span = forward(low), forward(high) - forward(low)
    ticks = {share: f"{back(first + share * span):.3g}" for share in (0.0, 0.25, 0.5, 0.75, 1.0)}
    return Scale(
        lambda v: _ABSENT if v is None else (forward(float(v)) - first) / span, {**absent, **ticks}
    )


def _even(number: int, count: int) -> float:
    return number / (count - 1) if count > 1 else 0.5


def _paint(
    axes: Any,
    titles: Sequence[str],
    scales: Sequence[Scale],
    lines: Sequence[Sequence[float]],
    goodness: Sequence[float],
) -> None:
    # The best are drawn last, over the others.
    for good, line in sorted(zip(goodness, lines, strict=True)):
        axes.plot(*_curve(line), color=shade(good), alpha=0.9, linewidth=1.4)
    low = min(min(line) for line in lines)
    for place, one in enumerate(scales):
        axes.plot([place, place], [min(low, 0.0), 1], color=GREY, linewidth=0.8)
        for height, text in one.ticks.items():
            axes.plot([place - 0.02, place + 0.02], [height] * 2, color=GREY, linewidth=0.8)
            axes.text(place + 0.04, height, shortened(text), va="center", fontsize=8)
    axes.set_xticks(range(len(titles)), [shortened(title) for title in titles])
    axes.tick_params(length=0)
    axes.set(yticks=[], xlim=(-0.1, len(titles) - 0.55), ylim=(min(low, 0.0) - 0.06, 1.06))
    axes.spines[:].set_visible(False)


def _curve(line: Sequence[float]) -> tuple[list[float], list[float]]:
    """A line that leaves every axis level, so that lines can be followed across it."""
    x, y = [], []
    for place, (left, right) in enumerate(pairwise(line)):
        for step in range(_STEPS):
            t = step / _STEPS
            x.append(place + t)
            y.append(left + (right - left) * t * t * (3 - 2 * t))
    return [*x, len(line) - 1.0], [*y, line[-1]]
