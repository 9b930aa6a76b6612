"""Which rows a limit takes, and what is said of a data set when it is opened."""

from collections.abc import Iterator, Sequence

import numpy as np

from egapipe.pipeline.config.data import Limit
from egapipe.pipeline.datasets.base import UNLABELLED, Labels
from egapipe.pipeline.views import key_hashes

WARNING = "warning: "
"""What a note that asks for a second look begins with."""

# More classes than this share of the labelled rows: the labels may be ids of the images.
_DOUBTFUL = 0.1
# So few are no doubt, however small the data set is.
_FEW = 10


def choose(keys: Sequence[str], labels: Labels, limit: Limit | None) -> Labels:
    """int64 [n], ascending: the rows that a limit leaves, all of them without one.

    `balanced` is a pure function of seed, keys and labels, and monotone: the rows of a smaller
    limit are among those of a larger one. Two classes differ by at most one row, unless one of them
    has no more.
    """
    rows = len(keys)
    if limit is None or limit.rows >= rows:
        return np.arange(rows)
    if limit.choose == "first":
        return np.arange(limit.rows)
    drawn = np.argsort(key_hashes(f"{limit.seed}\n{key}" for key in keys), kind="stable")
    unlabelled = drawn[labels[drawn] == UNLABELLED]
    labelled = drawn[labels[drawn] != UNLABELLED]
    # In whole numbers, rounded up: with any labelled row one is taken.
    count = -(-limit.rows * len(labelled) // rows)
    balanced = labelled[np.argsort(_rounds(labels[labelled]), kind="stable")]
    return np.sort(np.concatenate([balanced[:count], unlabelled[: limit.rows - count]]))


def notes(
    name: str, labels: Labels, classes: Sequence[str] | None, limit: Limit | None
) -> Iterator[str]:
    """Number of classes, a doubtful one, and what the limit takes; labels before the limit."""
    labelled = int((labels != UNLABELLED).sum())
    count = len(classes or ())
    if count:
        yield f"{name}: {labelled:,} of {len(labels):,} rows have one of {count:,} classes"
    if count > max(_FEW, _DOUBTFUL * labelled):
        yield (
            f"{WARNING}{name} has {count:,} classes for {labelled:,} labelled rows: are its labels "
            "ids of the images?"
        )
    if limit is not None and limit.rows < len(labels):
        how = (
            "the first rows, whatever their classes"
            if limit.choose == "first"
            else f"as many of each class as can be, drawn by seed {limit.seed}; "
            "`choose: first` takes the first rows"
        )
        yield f"{name}: {limit.rows:,} of {len(labels):,} rows ({how})"


def _rounds(labels: Labels) -> Labels:
    """int64 [n]: how often a row's class has come before it."""
    order = np.argsort(labels, kind="stable")
    starts = np.diff(labels[order], prepend=UNLABELLED) != 0
    places = np.arange(len(labels))
    rounds = np.empty_like(places)
    rounds[order] = places - np.maximum.accumulate(np.where(starts, places, 0))
    return rounds
