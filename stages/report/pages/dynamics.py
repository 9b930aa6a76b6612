"""What a run recorded after each epoch, on its page."""

from egapipe.stages.report.charts.curves import Metrics, run_curve
from egapipe.stages.report.charts.figure import Figure
from egapipe.stages.report.pages.document import Section

_NO_LOSS = ("top1", "seconds", "rows_per_s", "data_wait")
_IMAGES = {"test": "test images", "validation": "validation images"}
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
_TEST_LOSS = (
    "Cross-entropy after each epoch. Where it rises while the accuracy does too, the student is "
    "more sure of its mistakes."
)
_AGREEMENT = (
    "How alike the graphs of student and teacher are after each epoch, on the same images: the "
    "correlation of their edges, 1 where they are equal up to scale. EGA makes it large."
)

_AGREED = {"graph": "nodes of both"}
_LATER = {"test-loss": "the loss on test images", "agreement": "the agreement of the graphs"}


def add_curves(section: Section, metrics: Metrics) -> None:
    """Accuracy, losses, agreement of the graphs and learning rate by epoch; a line says which of
    them an older egapipe did not record."""
    if not metrics:
        return
    names = dict.fromkeys(name for line in metrics for name in line)
    accuracy = {text: f"{of}/top1" for of, text in _IMAGES.items()}
    accuracy |= {"labelled training images": "train/top1"}
    accuracy |= {f"{text}, moving average": f"{of}/ema_top1" for of, text in _IMAGES.items()}
    parts = {
        name.removeprefix("train/"): name
        for name in names
        if name.startswith("train/") and name.removeprefix("train/") not in _NO_LOSS
    }
    tested = {text: f"{of}/loss" for of, text in _IMAGES.items()}
    graphs = {
        f"{what}, {text}": f"{of}/{name}"
        for of, text in _IMAGES.items()
        for name, what in _AGREED.items()
    }
    drawn: dict[str, Figure | None] = {
        "accuracy": run_curve(
            "accuracy", "Accuracy", _ACCURACY, metrics, accuracy, "top-1 %", bounded=True
        ),
        "losses": run_curve(
            "losses", "Losses", _LOSSES, metrics, parts, "mean over the epoch's steps"
        ),
        "test-loss": run_curve(
            "test-loss", "Loss on images not learned from", _TEST_LOSS, metrics, tested, "loss"
        ),
        "agreement": run_curve(
            "agreement",
            "Agreement of the graphs",
            _AGREEMENT,
            metrics,
            graphs,
            "correlation",
            bounded=True,
        ),
        "rate": run_curve(
            "rate",
            "Learning rate",
            "Of the last step of each epoch.",
            metrics,
            {"learning rate": "lr"},
            "learning rate",
        ),
    }
    section.figure(*(figure for figure in drawn.values() if figure is not None))
    missing = [text for name, text in _LATER.items() if drawn[name] is None]
    if missing:
        section.text(
            f"This run has no record by epoch of {' or '.join(missing)}: an older egapipe trained "
            "it, or it was not measured."
        )
