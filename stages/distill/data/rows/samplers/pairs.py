"""Batches of small groups of rows that the data set's pairs join.

Of rows at random hardly two of a pair meet: a batch of 64 among 20,000 has one pair in 317. In
groups a row meets those that it is joined to.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from egapipe.pipeline.errors import UsageError
from egapipe.stages.distill.data.rows.links import Links
from egapipe.stages.distill.data.rows.order import Ints, Order, generator
from egapipe.stages.distill.data.rows.samplers.base import Pool

_STREAM = 7
Group = list[int]


def pairs_order(pool: Pool) -> Order:
    """See `paired`. Raises UsageError where the data set has no pairs."""
    if pool.links is None:
        raise UsageError("distill.sampler is pairs: name the file of them in dataset.pairs")
    partners = both_ways(pool.links)
    return partial(paired, partners=partners, size=pool.group, batch=pool.batch, seed=pool.seed)


def both_ways(links: Links) -> tuple[Ints, Ints]:
    """int64 [2 E] each: rows, ascending, and one that each is joined to, whichever comes first."""
    sources = links.sources
    rows = np.concatenate([sources, links.targets])
    others = np.concatenate([links.targets, sources])
    order = np.lexsort((others, rows))
    return rows[order], others[order]


def paired(
    rows: Ints,
    number: int,
    partners: tuple[Ints, Ints],
    size: int,
    batch: int | None,
    seed: int,
) -> Ints:
    """Every row once, in groups of `size` at most that follow each other, a function of
    (seed, number).

    Greedy: in random order each row that has no group yet opens one, which takes in rows that are
    joined to those that it has, nearer ones first and by chance among these, until it is full. So
    all pairs of rows that hang together, `size` of them or fewer, meet in every pass; of more,
    others in each. Groups are shuffled, and lie within a batch: one that does not fit gives way to
    a smaller one, and is divided where there is none.

    rows: int64 [M], a subset of all. partners: see `both_ways`. batch: rows of one, None: all.
    """
    rng = generator(seed, number, _STREAM)
    groups = list(_groups(rows, partners, size, rng))
    shuffled = [groups[place] for place in rng.permutation(len(groups)).tolist()]
    return np.array([*_packed(shuffled, batch or max(1, len(rows)))], dtype=np.int64)


def _groups(
    rows: Ints, partners: tuple[Ints, Ints], size: int, rng: np.random.Generator
) -> Iterator[Group]:
    starts, others = _shuffled(partners, int(rows.max(initial=-1)) + 1, rng)
    # As lists and bytes: one number at a time they are several times faster than arrays.
    free = bytearray(max(len(starts), int(others.max(initial=-1)) + 1))
    for row in rows.tolist():
        free[row] = 1
    for row in rng.permutation(rows).tolist():
        if free[row]:
            free[row] = 0
            group = [row]
            for member in group:
                if len(group) == size:
                    break
                _take_in(group, others[starts[member] : starts[member + 1]], free, size)
            yield group


def _take_in(group: Group, others: Ints, free: bytearray, size: int) -> None:
    """Free ones of some rows, until the group has `size`."""
    for other in others.tolist():
        if free[other]:
            free[other] = 0
            group.append(other)
            if len(group) == size:
                return


def _shuffled(
    partners: tuple[Ints, Ints], rows: int, rng: np.random.Generator
) -> tuple[list[int], Ints]:
    """Where the partners of each row begin, rows + 1 numbers, and all of them, those of a row in
    random order."""
    of, others = partners
    order = np.lexsort((rng.random(len(of)), of))
    starts = np.searchsorted(of, np.arange(rows + 1))
    return starts.tolist(), others[order]


def _packed(groups: Sequence[Group], batch: int) -> Iterator[int]:
    """The rows of groups in their order, so far as a group lies within a batch."""
    waiting: dict[int, deque[int]] = {}
    for place, group in enumerate(groups):
        waiting.setdefault(len(group), deque()).append(place)
    sizes, taken = sorted(waiting, reverse=True), bytearray(len(groups))
    room = batch
    for place, whole in enumerate(groups):
        group = [] if taken[place] else whole
        taken[place] = 1
        while group:
            part = group if len(group) <= room else _smaller(groups, waiting, sizes, taken, room)
            if part is None:
                part, group = group[:room], group[room:]
            elif part is group:
                group = []
            yield from part
            room = room - len(part) or batch


def _smaller(
    groups: Sequence[Group],
    waiting: dict[int, deque[int]],
    sizes: Sequence[int],
    taken: bytearray,
    room: int,
) -> Group | None:
    """The first of the largest groups not yet taken that fit; None where there is none."""
    for size in sizes:
        places = waiting[size]
        while size <= room and places:
            place = places.popleft()
            if not taken[place]:
                taken[place] = 1
                return groups[place]
    return None
