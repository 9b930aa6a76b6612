"""Where the student is right and wrong: by class, by pair of classes, by image."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from egapipe.stages.report.figure import COLOURS, WIDTH, Figure, Paint, draw
from egapipe.stages.report.names import escape, shortened
from egapipe.stages.report.sample import Ints, Sample
from egapipe.stages.report.thumbnails import image_html

# Classes with a name in a figure, and in a matrix whose squares can still be seen.
_NAMED, _DENSE = 30, 100
_PAIRS = 12
_WORST = 24
_WORST_NAMED = 5
# Longer names are turned where they stand below an axis; a letter's inches.
_LEVEL = 2
_LETTER = 0.08


def class_figure(sample: Sample) -> Figure:
    """Accuracy by class, the worst first; of many classes the worst, and how many are how good."""
    counts, right = by_class(sample)
    known = np.flatnonzero(counts)
    accuracy = 100 * right[known] / counts[known]
    order = np.argsort(accuracy, kind="stable")
    named = [(sample.names[known[i]], accuracy[i]) for i in order[:_NAMED]]
    of = [int(counts[known[i]]) for i in order[:_WORST_NAMED]]
    paints: list[Paint] = [partial(_paint_bars, named=named)]
    worst = ", ".join(
        f"{shortened(name, 40)} ({value:.0f} % of {count:,})"
        for (name, value), count in zip(named, of, strict=False)
    )
    caption = f"Mean over classes {accuracy.mean():.2f} %. The worst, by their images: {worst}."
    if len(known) > _NAMED:
        paints.append(partial(_paint_distribution, accuracy=accuracy))
        caption += f" The {_NAMED} worst of {len(known):,} classes, and how good all of them are."
    return draw(
        "classes",
        "Accuracy by class",
        caption,
        *paints,
        size=(WIDTH, 1.0 + 0.24 * len(named)),
    )


def _paint_bars(axes: Any, named: Sequence[tuple[str, float]]) -> None:
    axes.barh(range(len(named)), [of for _, of in named], color=COLOURS[0], height=0.8)
    axes.set(xlabel="top-1 %", xlim=(0, 100), ylim=(len(named) - 0.4, -0.6))
    _name(axes.yaxis, [name for name, _ in named])


def _paint_distribution(axes: Any, accuracy: npt.NDArray[np.float64]) -> None:
    axes.hist(accuracy, bins=20, range=(0, 100), color=COLOURS[0], rwidth=0.9)
    axes.set(xlabel="top-1 % of a class", ylabel="classes", xlim=(0, 100))


def confusion_figure(sample: Sample) -> Figure:
    """The share of each class's images that goes to each class; of many classes those that most
    mistakes are made between."""
    shown = confused_classes(sample, _NAMED if len(sample.names) > _DENSE else _DENSE)
    matrix = confusion(sample, shown)
    totals = by_class(sample)[0][shown]
    shares = matrix / np.maximum(totals, 1)[:, None]
    names = [sample.names[c] for c in shown]

    def paint(axes: Any) -> None:
        picture = axes.imshow(shares, cmap=_see_through(), vmin=0, vmax=1, interpolation="none")
        axes.set(xlabel="the student says", ylabel="label")
        axes.spines[:].set_visible(True)
        for axis in (axes.xaxis, axes.yaxis):
            _name(axis, names)
        axes.figure.colorbar(
            picture, ax=axes, location="top", aspect=40, label="share of the label's images"
        )

    caption = f"A row a label, of {int(totals.sum()):,} test images; right ones on the diagonal."
    if len(shown) < len(sample.names):
        caption += (
            f" The {len(shown)} of {len(sample.names):,} classes that most mistakes are made with; "
            "what goes to others is not shown."
        )
    return draw("confusions", "Confusions", caption, paint, size=_square(names))


def _see_through() -> Any:
    """From the page's background to a colour: nothing is nothing on a dark page too."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgba

    ends = [to_rgba(COLOURS[0], alpha) for alpha in (0.0, 1.0)]
    return LinearSegmentedColormap.from_list("shares", ends)


def by_class(sample: Sample) -> tuple[Ints, Ints]:
    """int64 [C] twice: test images of each class, and those of them that are right."""
    classes = len(sample.names)
    hits = sample.labels[sample.predicted == sample.labels]
    counts, right = (np.bincount(of, minlength=classes) for of in (sample.labels, hits))
    return counts.astype(np.int64), right.astype(np.int64)


def mistakes(sample: Sample) -> tuple[Ints, Ints]:
    """Pairs of label and predicted class that differ, int64 [k, 2], the most frequent first, and
    how many images each has, int64 [k]: as many pairs as images at most, whatever C is."""
    wrong = sample.predicted != sample.labels
    pairs = np.stack([sample.labels[wrong], sample.predicted[wrong]], axis=1)
    found, counts = np.unique(pairs, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return found[order], counts[order].astype(np.int64)


def confused_classes(sample: Sample, most: int) -> Ints:
    """All classes, or those that most mistakes are made with: int64 [<= most], sorted."""
    classes = len(sample.names)
    if classes <= most:
        return np.arange(classes)
    pairs, counts = mistakes(sample)
    involved = np.bincount(pairs.ravel(), weights=np.repeat(counts, 2), minlength=classes)
    # Of classes without mistakes those that have images.
    ranked = np.lexsort((-by_class(sample)[0], -involved))
    return np.sort(ranked[:most])


def confusion(sample: Sample, classes: Ints) -> Ints:
    """int64 [K, K]: images by label and by predicted class, of some classes, int64 [K], sorted."""
    both = np.isin(sample.labels, classes) & np.isin(sample.predicted, classes)
    rows, columns = (np.searchsorted(classes, of[both]) for of in (sample.labels, sample.predicted))
    counts = np.bincount(rows * len(classes) + columns, minlength=len(classes) ** 2)
    return np.asarray(counts.reshape(len(classes), len(classes)), dtype=np.int64)


def confused_pairs(sample: Sample) -> list[tuple[str, str, int, str]]:
    """Label, class, images and their share of the label's: the most frequent mistakes first."""
    totals = by_class(sample)[0]
    pairs, counts = mistakes(sample)
    return [
        (sample.names[a], sample.names[b], int(count), f"{count / totals[a]:.0%}")
        for (a, b), count in zip(pairs[:_PAIRS], counts[:_PAIRS], strict=True)
    ]


def worst_html(sample: Sample) -> str:
    """The test images with the largest cross-entropy, with what the student took them for."""
    losses = sample.losses
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
