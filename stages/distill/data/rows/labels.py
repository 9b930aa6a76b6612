"""Which labels training may use, chosen by seed."""

from collections.abc import Callable

import numpy as np

from egapipe.pipeline.errors import UsageError
from egapipe.stages.distill.data.rows.order import UNLABELLED, Ints, generator


def keep_labels(labels: Ints, per_class: int | None, seed: int) -> Ints:
    """A copy of the labels in which only `per_class` rows of each class keep theirs, by seed.

    Raises UsageError if a class has fewer rows than that.
    """
    if per_class is None:
        return labels.copy()
    rng = generator(seed, per_class)

    def choose(label: int, rows: Ints) -> Ints:
        if len(rows) < per_class:
            raise UsageError(
                f"distill.labels_per_class is {per_class}, but class {label} has {len(rows)} rows"
            )
        return rng.choice(rows, per_class, replace=False)

    return _kept(labels, choose)


def keep_fraction(labels: Ints, fraction: float | None, seed: int) -> Ints:
    """A copy of the labels in which this share of each class's rows keep theirs, by seed.

    Rounded, and at least one. A larger fraction keeps what a smaller one keeps, and more.
    """
    if fraction is None:
        return labels.copy()

    def choose(label: int, rows: Ints) -> Ints:
        order = generator(seed, label).permutation(rows)
        return order[: max(1, round(fraction * len(rows)))]

    return _kept(labels, choose)


def _kept(labels: Ints, choose: Callable[[int, Ints], Ints]) -> Ints:
    kept = np.full_like(labels, UNLABELLED)
    for label in np.unique(labels[labels != UNLABELLED]):
        kept[choose(int(label), np.flatnonzero(labels == label))] = label
    return kept
