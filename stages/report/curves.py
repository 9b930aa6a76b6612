"""Learning curves of one run or of many."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from egapipe.stages.report.figure import COLOURS, Figure, draw
from egapipe.stages.report.names import shortened

Metrics = list[dict[str, Any]]
"""The epochs of a run, as in metrics.jsonl."""

ACCURACY = "test/top1"
VALIDATION = "validation/top1"
TEST_TOP1 = "top-1 on the test images, %"
_TRAIN = "train/"
_SHADES = ("#6c8ebf", "#b065b5", "#f08a24")
_ACCURACY = (
    "Of test and validation images after each epoch. Of training images the mean over the epoch's "
    "steps, on augmented images and by weights that were still changing: it is no measure of the "
    "epoch's end."
)
_LOSSES = (
    'Means over the epoch\'s steps. "loss" is what training makes small, the weighted sum; each '
    'part is as it is before its weight. "head_ce", the cross-entropy of the teacher\'s head, is '
    "no part of the sum."
)
_NO_LOSS = ("top1", "seconds", "rows_per_s", "data_wait")


def run_curves(metrics: Metrics) -> list[Figure]:
    """Accuracy, and the parts of the loss, of one run by epoch; captions say what each is."""
    accuracy = {
        "test images": ACCURACY,
        "validation images": VALIDATION,
        "labelled training images": "train/top1",
    }
    averages = {
        "test images, moving average": "test/ema_top1",
        "validation images, moving average": "validation/ema_top1",
    }
    accuracy |= {text: name for text, name in averages.items() if name in metrics[-1]}
    parts = {
        name.removeprefix(_TRAIN): name
        for name in metrics[-1]
        if name.startswith(_TRAIN) and name.removeprefix(_TRAIN) not in _NO_LOSS
    }

    def paint_accuracy(axes: Any) -> None:
        _plot(axes, metrics, {k: v for k, v in accuracy.items() if v in metrics[-1]})
        axes.set(ylabel="top-1 %")

    def paint_losses(axes: Any) -> None:
        _plot(axes, metrics, parts)
        axes.set(ylabel="mean over the epoch's steps")
        if all(values(metrics, name).min() > 0 for name in parts.values()):
            axes.set_yscale("log")
            _plain_ticks(axes)

    return [
        draw("accuracy", "Accuracy", _ACCURACY, paint_accuracy),
        draw("losses", "Losses", _LOSSES, paint_losses),
    ]


def group_curves(groups: Mapping[str, Sequence[Metrics]]) -> Figure | None:
    """Test accuracy by epoch, a line a group: the mean of its runs, and the range of them.

    None if no run has any.
    """
    tables = {name: _table(runs) for name, runs in groups.items()}
    tables = {name: table for name, table in tables.items() if table.size}
    if not tables:
        return None

    def paint(axes: Any) -> None:
        for number, (name, table) in enumerate(tables.items()):
            colour, epochs = COLOURS[number % len(COLOURS)], np.arange(1, table.shape[1] + 1)
            mean = np.ma.masked_invalid(table).mean(axis=0).filled(np.nan)
            # A space, for matplotlib leaves out what begins with an underscore.
            axes.plot(epochs, mean, color=colour, label=f" {shortened(name)}", **_marker(epochs))
            if len(table) > 1:
                low, high = np.fmin.reduce(table), np.fmax.reduce(table)
                axes.fill_between(epochs, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.set(xlabel="epoch", ylabel=_top1([m for runs in groups.values() for m in runs]))
        _whole_epochs(axes)
        if len(tables) <= 2 * len(COLOURS):
            axes.legend()

    caption = "A line is the mean of runs; where there are several, the band has all of them."
    return draw("curves", "Learning curves", caption, paint)


def trial_curves(trials: Sequence[Metrics], heights: Sequence[float]) -> Figure | None:
    """Test accuracy by epoch, a line a trial. heights: how good each is, 0..1.

    None if no trial has any.
    """
    lines = [(_accuracy(m), h) for m, h in zip(trials, heights, strict=True) if m]
    lines = [(line, height) for line, height in lines if np.isfinite(line).any()]
    if not lines:
        return None

    def paint(axes: Any) -> None:
        for line, height in sorted(lines, key=lambda pair: pair[1]):
            epochs = np.arange(1, len(line) + 1)
            axes.plot(epochs, line, color=shade(height), **_marker(epochs))
        axes.set(xlabel="epoch", ylabel=_top1(trials))
        _whole_epochs(axes)

    caption = "A line a trial; the warmer its colour, the better it ended."
    return draw("curves", "Learning curves", caption, paint)


def values(metrics: Metrics, name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """float64 [epochs]; NaN where an epoch has none."""
    return np.array([line.get(name, math.nan) for line in metrics], dtype=float)


def _accuracy(metrics: Metrics) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Of each epoch on the test images, or, where those are measured at the end, the validation."""
    return values(metrics, VALIDATION if any(VALIDATION in m for m in metrics) else ACCURACY)


def _top1(runs: Sequence[Metrics]) -> str:
    """Of which images `_accuracy` is."""
    validated = any(VALIDATION in line for metrics in runs for line in metrics)
    return TEST_TOP1.replace("test", "validation") if validated else TEST_TOP1


def shade(height: float) -> Any:
    """The colour of a trial, from blue over violet to orange."""
    from matplotlib.colors import LinearSegmentedColormap

    # Each can be seen on a dark page and on a light one.
    return LinearSegmentedColormap.from_list("trials", _SHADES)(height)


def _plot(axes: Any, metrics: Metrics, names: Mapping[str, str]) -> None:
    epochs = np.array([line["epoch"] + 1 for line in metrics])
    for number, (label, name) in enumerate(names.items()):
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(epochs, values(metrics, name), color=colour, label=label, **_marker(epochs))
    axes.set(xlabel="epoch")
    _whole_epochs(axes)
    if names:
        axes.legend()


def _marker(epochs: Sequence[int] | np.ndarray[Any, Any]) -> dict[str, Any]:
    """A line of one point would not be seen."""
    return {"marker": "o", "markersize": 3} if len(epochs) < 4 else {}


def _whole_epochs(axes: Any) -> None:
    axes.xaxis.get_major_locator().set_params(integer=True)


def _plain_ticks(axes: Any) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _table(runs: Sequence[Metrics]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """float64 [runs, epochs] of those that have test accuracy."""
    lines = [_accuracy(run) for run in runs]
    lines = [line for line in lines if np.isfinite(line).any()]
    length = max((len(line) for line in lines), default=0)
    padded = [np.pad(line, (0, length - len(line)), constant_values=math.nan) for line in lines]
    return np.array(padded).reshape(len(lines), length)
