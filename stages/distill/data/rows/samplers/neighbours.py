"""Batches of small groups: a row and those nearest to it in teacher space.

A graph of random rows has few strong edges: of 64 images in 100 classes hardly two are alike. In
groups every node has some.
"""

from functools import partial

import numpy as np

from egapipe.stages.distill.data.rows.order import Ints, Order, generator
from egapipe.stages.distill.data.rows.samplers.base import Pool
from egapipe.stages.distill.data.rows.samplers.search import Nearest

_STREAM = 4


def neighbours_order(pool: Pool) -> Order:
    """See `grouped`."""
    return partial(grouped, nearest=pool.nearest(), size=pool.group, seed=pool.seed)


def grouped(rows: Ints, number: int, nearest: Nearest, size: int, seed: int) -> Ints:
    """Every row once, in groups of `size` at most that follow each other, a function of
    (seed, number).

    Greedy: in random order each row that has no group yet opens one, with the nearest of those that
    have none either. Late in that order most neighbours are taken and groups are small; so the
    groups are shuffled, for batches to be alike from the first to the last.

    rows: int64 [M]. nearest: int32 [N, K] of all rows of the training, see `Pool`.
    """
    rng = generator(seed, number, _STREAM)
    # As lists and bytes: one number at a time they are several times faster than arrays.
    free = bytearray(len(nearest))
    for row in rows.tolist():
        free[row] = 1
    groups: list[list[int]] = []
    for row in rng.permutation(rows).tolist():
        if free[row]:
            free[row] = 0
            group = [row]
            for other in nearest[row].tolist():
                if len(group) == size:
                    break
                if other >= 0 and free[other]:
                    free[other] = 0
                    group.append(other)
            groups.append(group)
    shuffled = rng.permutation(len(groups)).tolist()
    return np.array([row for place in shuffled for row in groups[place]], dtype=np.int64)
