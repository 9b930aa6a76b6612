"""Where the student is right and wrong: by class, by pair of classes, by image."""

from typing import Any

import numpy as np

from egapipe.stages.report.figure import COLOURS, WIDTH, Figure, draw, shortened
from egapipe.stages.report.page import escape
from egapipe.stages.report.sample import Ints, Sample
from egapipe.stages.report.thumbnails import image_html

_NAMED = 30
_PAIRS = 12
_WORST = 24
# Longer names are turned where they stand below an axis; a letter's inches.
_LEVEL = 2
_LETTER = 0.08


def class_figure(sample: Sample) -> Figure:
    """Accuracy by class, the worst first."""
    matrix = confusion(sample)
    counts = matrix.sum(axis=1)
    accuracy = 100 * np.diag(matrix) / np.maximum(counts, 1)
    order = [int(c) for c in np.argsort(accuracy, kind="stable") if counts[c]]

    def paint(axes: Any) -> None:
        axes.barh(range(len(order)), accuracy[order], color=COLOURS[0], height=0.8)
        axes.set(xlabel="top-1 %", xlim=(0, 100), ylim=(len(order) - 0.4, -0.6))
        _name(axes.yaxis, [sample.names[c] for c in order])
        if len(order) > _NAMED:
            axes.set(ylabel="classes, the worst first")

    worst = ", ".join(f"{sample.names[c]} ({accuracy[c]:.0f} %)" for c in order[:5])
    caption = f"Mean over classes {accuracy[order].mean():.2f} %. The worst: {worst}."
    height = 1.0 + 0.24 * len(order) if len(order) <= _NAMED else WIDTH
    return draw("classes", "Accuracy by class", caption, paint, size=(WIDTH, height))


def confusion_figure(sample: Sample) -> Figure:
    """The share of each class's images that goes to each class."""
    matrix = confusion(sample)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)

    def paint(axes: Any) -> None:
        shown = axes.imshow(shares, cmap=_see_through(), vmin=0, vmax=1, interpolation="none")
        axes.set(xlabel="the student says", ylabel="label")
        axes.spines[:].set_visible(True)
        for axis in (axes.xaxis, axes.yaxis):
            _name(axis, sample.names)
        axes.figure.colorbar(
            shown, ax=axes, location="top", aspect=40, label="share of the label's images"
        )

    caption = f"A row a label, of {len(sample.rows):,} test images; right ones on the diagonal."
    return draw("confusions", "Confusions", caption, paint, size=_square(sample.names))


def _see_through() -> Any:
    """From the page's background to a colour: nothing is nothing on a dark page too."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgba

    ends = [to_rgba(COLOURS[0], alpha) for alpha in (0.0, 1.0)]
    return LinearSegmentedColormap.from_list("shares", ends)


def confusion(sample: Sample) -> Ints:
    """int64 [C, C]: images by label and by predicted class."""
    classes = len(sample.names)
    flat = sample.labels * classes + sample.predicted
    counts = np.bincount(flat, minlength=classes * classes)
    return np.asarray(counts.reshape(classes, classes), dtype=np.int64)


def confused_pairs(sample: Sample) -> list[tuple[str, str, int, str]]:
    """Label, class, images and their share of the label's: the most frequent mistakes first."""
    matrix = confusion(sample)
    totals = matrix.sum(axis=1)
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS]
    pairs = (np.unravel_index(int(place), wrong.shape) for place in order)
    return [
        (sample.names[a], sample.names[b], int(wrong[a, b]), f"{wrong[a, b] / totals[a]:.0%}")
        for a, b in pairs
        if wrong[a, b]
    ]


def worst_html(sample: Sample) -> str:
    """The test images with the largest cross-entropy, with what the student took them for."""
    losses = sample.losses()
    images = []
    for place in np.argsort(-losses, kind="stable")[:_WORST]:
        image = sample.dataset.image(int(sample.rows[place]))
        text = f"{sample.described(int(place))} (loss {losses[place]:.2f})"
        images.append(image_html(image, escape(text)))
    return f'<div class="images">{"".join(images)}</div>'


def _square(names: list[str]) -> tuple[float, float]:
    """Inches of a figure as wide as a phone around a square with names on its left and below it."""
    longest = max(len(shortened(name)) for name in names) if len(names) <= _NAMED else 0
    beside = _LETTER * longest
    below = beside if longest > _LEVEL else _LETTER
    # Texts of the axes and the bar of colours take the rest.
    return WIDTH, WIDTH - 0.6 - beside + below + 1.1


def _name(axis: Any, names: list[str]) -> None:
    """Names along an axis, if they are few enough to be read."""
    if len(names) > _NAMED:
        axis.set_ticks([])
        return
    texts = [shortened(name) for name in names]
    turned = axis.axis_name == "x" and max(map(len, texts)) > _LEVEL
    axis.set_ticks(range(len(texts)), texts, rotation=90 if turned else 0)
    axis.set_tick_params(length=0)
