"""Batches in which every class comes equally often."""

from functools import partial

import numpy as np

from egapipe.pipeline.errors import UsageError
from egapipe.stages.distill.data.rows.order import UNLABELLED, Ints, Order, generator
from egapipe.stages.distill.data.rows.samplers.base import Pool

_STREAM = 3


def class_balanced_order(pool: Pool) -> Order:
    """See `balanced`. Raises UsageError if rows without a label would be among those to order."""
    unlabelled = int((pool.labels[pool.rows] == UNLABELLED).sum())
    if unlabelled:
        raise UsageError(
            f"distill.sampler is class-balanced, but {unlabelled:,} rows have no label: set "
            "distill.unlabelled_ratio, how many of them a batch has for each labelled one"
        )
    return partial(balanced, labels=pool.labels, seed=pool.seed)


def balanced(rows: Ints, number: int, labels: Ints, seed: int) -> Ints:
    """As many rows as given, in an order in which the classes take turns.

    Among any rows that follow each other the counts of two classes differ by one at most. Within a
    class no row comes again before all others came: with classes of one size every row comes once.
    Of a smaller class rows come again, of a larger one some sit this pass out, others each time.
    The turns and the rows within a class are functions of (seed, number).

    rows: int64 [N]. labels: int64 of the data set, >= 0 at these rows.
    """
    rng = generator(seed, number, _STREAM)
    classes = rng.permutation(np.unique(labels[rows]))
    order = np.empty_like(rows)
    for turn, label in enumerate(classes):
        mine = rows[labels[rows] == label]
        slots = order[turn :: len(classes)]
        rounds = [rng.permutation(mine) for _ in range(-(-len(slots) // len(mine)))]
        slots[:] = np.concatenate(rounds)[: len(slots)]
    return order
