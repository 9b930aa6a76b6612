"""Where the student is right and wrong: by class, and by pair of classes."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import numpy.typing as npt

from egapipe.pipeline.mathematics.proportion import interval
from egapipe.stages.report.charts.colours import BLUE, GREY, ORANGE
from egapipe.stages.report.charts.figure import WIDTH, Figure, draw, hover, table
from egapipe.stages.report.charts.series import named_axis, texts
from egapipe.stages.report.names import shortened
from egapipe.stages.report.sample import Ints, Sample

# Classes with a name in a figure, and in a matrix whose squares can still be seen.
_NAMED, _DENSE = 30, 100
# Squares that have room for a count.
_COUNTED = 12
_PAIRS = 12
_WORST_NAMED = 5


def class_figure(sample: Sample) -> Figure:
    """Accuracy by class, the worst first; of many classes the worst, and how many are how good."""
    found = by_class(sample)
    known = np.flatnonzero(found[0])
    accuracy = 100 * found[1][known] / found[0][known]
    order = known[np.argsort(accuracy, kind="stable")][:_NAMED]
    rows = [{"place": place, **_of_class(found, c)} for place, c in enumerate(order)]
    names = [sample.names[c] for c in order]
    panels = [_accuracies(rows, names)]
    worst = ", ".join(
        f"{shortened(name, 40)} ({row['accuracy']:.0f} % of {row['images']:,})"
        for name, row in zip(names[:_WORST_NAMED], rows, strict=False)
    )
    caption = (
        f"Mean over classes {accuracy.mean():.2f} %. The worst, by their images: {worst}. A line "
        "is the 95% interval of Wilson: of few images it is long."
    )
    if len(known) > _NAMED:
        panels.append(_distribution(accuracy))
        caption += f" The {_NAMED} worst of {len(known):,} classes, and how good all of them are."
    return draw("classes", "Accuracy by class", caption, *panels, size=(WIDTH, 30 + 19 * len(rows)))


def class_rows(sample: Sample, most: int) -> list[list[str]]:
    """Class, images, accuracy and its interval, and what it is taken for most: the worst first."""
    counts, right = found = by_class(sample)
    known = np.flatnonzero(counts)
    order = known[np.argsort(right[known] / counts[known], kind="stable")][:most]
    pairs, often = mistakes(sample)
    # The most frequent first: the last that is written is it.
    taken = {int(a): (int(b), int(n)) for (a, b), n in zip(pairs[::-1], often[::-1], strict=True)}
    rows = []
    for c in order:
        of = _of_class(found, int(c))
        other = taken.get(int(c))
        said = "" if other is None else f"{sample.names[other[0]]} ({other[1]:,})"
        between = f"{of['low']:.1f} to {of['high']:.1f}"
        rows.append([sample.names[c], said, f"{of['images']:,}", f"{of['accuracy']:.1f}", between])
    return rows


def _of_class(found: tuple[Ints, Ints], number: int) -> dict[str, float]:
    """Images and accuracy of a class, % with the ends of its interval."""
    images, right = (int(of[number]) for of in found)
    low, high = interval(right, images)
    return {
        "images": images,
        "accuracy": 100 * right / images,
        "low": 100 * low,
        "high": 100 * high,
    }


def _accuracies(rows: Sequence[dict[str, float]], names: Sequence[str]) -> Any:
    base = alt.Chart(table(rows)).transform_calculate(name="whole[datum.place]")
    shown = hover(
        ("name", "class"),
        ("accuracy", "top-1 %", ".2f"),
        ("low", "from", ".1f"),
        ("high", "to", ".1f"),
        ("images", "images", ","),
    )
    place = alt.Y("place:O", axis=named_axis(ticks=False, domain=False))
    scale = alt.Scale(domain=[0, 100])
    line = base.mark_rule(strokeWidth=3, color=GREY, opacity=0.55).encode(
        x=alt.X("low:Q", scale=scale, title="top-1 %"), x2="high:Q", y=place, tooltip=shown
    )
    dot = base.mark_point(filled=True, size=70, color=BLUE, opacity=1).encode(
        x=alt.X("accuracy:Q", scale=scale), y=place, tooltip=shown
    )
    return alt.layer(line, dot).add_params(*texts(names))


def _distribution(accuracy: npt.NDArray[np.float64]) -> Any:
    counts, edges = np.histogram(accuracy, bins=20, range=(0, 100))
    rows = [
        {"from": float(low), "to": float(low) + 5, "classes": int(count)}
        for low, count in zip(edges[:-1], counts, strict=True)
    ]
    shown = hover(("from", "from %", ".0f"), ("to", "to %", ".0f"), ("classes", "classes", ","))
    return (
        alt.Chart(table(rows))
        .mark_bar(color=BLUE, binSpacing=2)
        .encode(
            x=alt.X("from:Q", title="top-1 % of a class", bin="binned"),
            x2="to:Q",
            y=alt.Y("classes:Q", title="classes"),
            tooltip=shown,
        )
    )


def confusion_figure(sample: Sample) -> Figure:
    """How many of each class's images go to each other class; of many classes those that most
    mistakes are made between. The diagonal, which would outshine them, is masked."""
    shown = confused_classes(sample, _NAMED if len(sample.names) > _DENSE else _DENSE)
    matrix, totals = confusion(sample, shown), by_class(sample)[0][shown]
    names = [sample.names[c] for c in shown]
    pairs = np.argwhere(matrix)
    cells = [
        {
            "row": int(a),
            "column": int(b),
            "count": int(matrix[a, b]),
            "share": round(float(matrix[a, b] / totals[a]), 4),
        }
        for a, b in pairs
    ]
    wrong = int(matrix.sum() - np.diag(matrix).sum())
    caption = (
        f"A row a label, of {int(totals.sum()):,} test images; {wrong:,} of them taken for another "
        "class. The diagonal, what is right, is masked: colours are of mistakes alone."
    )
    if len(shown) < len(sample.names):
        caption += (
            f" The {len(shown)} of {len(sample.names):,} classes that most mistakes are made with; "
            "what goes to others is not shown."
        )
    side = 330 if len(shown) <= _NAMED else 420
    return draw("confusions", "Confusions", caption, _matrix(cells, names), size=(side + 60, side))


def _matrix(cells: list[dict[str, Any]], names: list[str]) -> Any:
    order = list(range(len(names)))
    scale = alt.Scale(domain=order, paddingInner=0.06 if len(names) <= _NAMED else 0)
    few = len(names) <= _NAMED
    # Of few letters they stand below an axis; more are turned.
    turned = -90 if max(len(shortened(name)) for name in names) > 2 else 0
    look = {"ticks": False, "labels": few, "domainOpacity": 0.2}
    below = named_axis("the student says", labelAngle=turned, **look)
    where = {
        "x": alt.X("column:O", scale=scale, axis=below),
        "y": alt.Y("row:O", scale=scale, axis=named_axis("label", **look)),
    }
    base = alt.Chart(table(cells)).transform_calculate(
        label="whole[datum.row]", said="whole[datum.column]"
    )
    shown = hover(
        ("label", "label"),
        ("said", "taken for"),
        ("count", "images", ","),
        ("share", "of it", ".1%"),
    )
    layers = []
    if any(cell["row"] == cell["column"] for cell in cells):
        right = base.transform_filter("datum.row === datum.column")
        layers.append(right.mark_rect(color=GREY, opacity=0.25).encode(**where, tooltip=shown))
    if any(cell["row"] != cell["column"] for cell in cells):
        legend = alt.Legend(
            title="of the label's images", orient="top", format="~%", gradientLength=200
        )
        scale = alt.Scale(range=[f"{ORANGE}33", ORANGE])
        colour = alt.Color("share:Q", scale=scale, legend=legend)
        wrong = base.transform_filter("datum.row !== datum.column")
        layers.append(wrong.mark_rect().encode(**where, color=colour, tooltip=shown))
    if len(names) <= _COUNTED:
        layers.append(base.mark_text(fontSize=11).encode(**where, text="count:Q", tooltip=shown))
    return alt.layer(*layers).add_params(*texts(names))


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
