"""Which rows in which order: pure functions of (seed, epoch)."""

import numpy as np
import numpy.typing as npt

from egapipe.pipeline.errors import UsageError

Ints = npt.NDArray[np.int64]
UNLABELLED = -1


def epoch_permutation(rows: Ints, seed: int, epoch: int) -> Ints:
    """The rows in the order of an epoch: every row once, a function of (seed, epoch) alone."""
    return np.random.default_rng([seed & 0xFFFFFFFF, epoch]).permutation(rows)


def epoch_batches(rows: Ints, batch_size: int, seed: int, epoch: int) -> list[Ints]:
    """The global batches of an epoch. All have `batch_size` rows: what is left over sits this epoch
    out (another remainder each epoch). Fewer rows than one batch make one batch.
    """
    order = epoch_permutation(rows, seed, epoch)
    steps = max(1, len(order) // batch_size)
    return [order[i * batch_size : (i + 1) * batch_size] for i in range(steps)]


def keep_labels(labels: Ints, per_class: int | None, seed: int) -> Ints:
    """A copy of the labels in which only `per_class` rows of each class keep theirs, by seed.

    Raises UsageError if a class has fewer rows than that.
    """
    if per_class is None:
        return labels.copy()
    kept = np.full_like(labels, UNLABELLED)
    rng = np.random.default_rng([seed & 0xFFFFFFFF, per_class])
    for label in np.unique(labels[labels != UNLABELLED]):
        rows = np.flatnonzero(labels == label)
        if len(rows) < per_class:
            raise UsageError(
                f"distill.labels_per_class is {per_class}, but class {label} has {len(rows)} rows"
            )
        chosen = rng.choice(rows, per_class, replace=False)
        kept[chosen] = label
    return kept
