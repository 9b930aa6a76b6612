"""How far the student's confidence is from its accuracy."""

import altair as alt

from egapipe.stages.evaluate.calibration import Bin, calibration_error, confidence_bins
from egapipe.stages.report.charts.colours import BLUE, GREY
from egapipe.stages.report.charts.figure import Figure, draw, hover, table
from egapipe.stages.report.sample import Sample


def reliability_figure(sample: Sample) -> Figure:
    """Accuracy by confidence, in bins (Guo et al., ICML 2017), and how many images each has.

    Raises ValueError if a confidence is not finite.
    """
    right = sample.predicted == sample.labels
    error = 100 * calibration_error(sample.confidence, right)
    bins = confidence_bins(sample.confidence, right)
    mean, accuracy = 100 * float(sample.confidence.mean()), 100 * float(right.mean())
    lean = "more" if mean > accuracy else "less"
    caption = (
        f"Of {len(right):,} test images: mean confidence {mean:.1f} %, accuracy {accuracy:.1f} %, "
        f"so {lean} sure than right; expected calibration error {error:.2f} % in {len(bins)} bins. "
        "On the dashed line both are equal. Beside it, how many images have that confidence."
    )
    return draw("reliability", "Reliability", caption, *_panels(bins), size=(380, 230))


def _panels(bins: list[Bin]) -> list[alt.Chart]:
    rows = [
        {
            "low": 100 * of.low,
            "high": 100 * of.high,
            "accuracy": 100 * of.accuracy,
            "confidence": 100 * of.confidence,
            "images": of.images,
        }
        for of in bins
        if of.images
    ]
    shown = hover(
        ("confidence", "confidence %", ".1f"),
        ("accuracy", "accuracy %", ".1f"),
        ("images", "images", ","),
    )
    percent = alt.Scale(domain=[0, 100])
    x = alt.X(
        "low:Q", bin="binned", scale=percent, title="confidence %", axis=alt.Axis(values=_TICKS)
    )
    bars = (
        alt.Chart(table(rows))
        .mark_bar(color=BLUE, opacity=0.75, binSpacing=1)
        .encode(
            x=x,
            x2="high:Q",
            y=alt.Y("accuracy:Q", scale=percent, title="accuracy %"),
            tooltip=shown,
        )
    )
    even = (
        alt.Chart(table([{"at": 0}, {"at": 100}]))
        .mark_line(color=GREY, strokeDash=[4, 3], strokeWidth=1.5)
        .encode(x=alt.X("at:Q", scale=percent), y=alt.Y("at:Q", scale=percent))
    )
    counts = (
        alt.Chart(table(rows))
        .mark_bar(color=GREY, binSpacing=1)
        .encode(x=x, x2="high:Q", y=alt.Y("images:Q", title="images"), tooltip=shown)
    )
    return [bars + even, counts]


_TICKS = [0, 20, 40, 60, 80, 100]
