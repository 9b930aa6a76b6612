"""Which rows in which order: pure functions of (seed, epoch), whatever the number of workers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from egapipe.pipeline.errors import UsageError

Ints = npt.NDArray[np.int64]
Order = Callable[[Ints, int], Ints]
"""(rows, number of the pass) to as many rows in the order of that pass."""
UNLABELLED = -1

# Streams of random numbers beside that of `epoch_permutation`, which has no third part.
_MIX, _UNLABELLED_PASS = 1, 2


def generator(seed: int, *parts: int) -> np.random.Generator:
    """Random numbers that are a function of the seed and of further integers >= 0."""
    return np.random.default_rng([seed & 0xFFFFFFFF, *parts])


def epoch_permutation(rows: Ints, seed: int, epoch: int) -> Ints:
    """The rows in the order of an epoch: every row once, a function of (seed, epoch) alone."""
    return generator(seed, epoch).permutation(rows)


def at_random(seed: int) -> Order:
    """`epoch_permutation` of every pass."""
    return lambda rows, number: epoch_permutation(rows, seed, number)


def epoch_batches(rows: Ints, batch_size: int, seed: int, epoch: int) -> list[Ints]:
    """The batches of an epoch in random order, cut as `cut` does."""
    return cut(epoch_permutation(rows, seed, epoch), batch_size)


def cut(order: Ints, batch_size: int) -> list[Ints]:
    """Global batches of `batch_size` rows: what is left over sits this epoch out (another remainder
    each epoch). Fewer rows than one batch make one batch.
    """
    steps = max(1, len(order) // batch_size)
    return [order[i * batch_size : (i + 1) * batch_size] for i in range(steps)]


def drawn_before(batches: Sequence[Ints]) -> list[Ints]:
    """How often each row of an epoch's batches came up in it before: 0 where it is the first time.

    Within a batch its earlier places come before. int64, of the lengths of the batches.
    """
    rows = np.concatenate(batches)
    places = np.argsort(rows, kind="stable")
    ordered = rows[places]
    first = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    lengths = np.diff(np.append(first, len(rows)))
    counts = np.empty_like(rows)
    counts[places] = np.arange(len(rows)) - np.repeat(first, lengths)
    return np.split(counts, np.cumsum([len(batch) for batch in batches])[:-1])


@dataclass(frozen=True)
class Plain:
    """One pass over all rows an epoch, labelled or not, as `order` draws them."""

    rows: Ints
    batch_size: int
    order: Order

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return max(1, len(self.rows) // self.batch_size)

    def epoch(self, epoch: int) -> list[Ints]:
        """The global batches of an epoch, int64 [batch_size] each."""
        return cut(self.order(self.rows, epoch), self.batch_size)


@dataclass(frozen=True)
class Mixed:
    """One pass over the labelled rows an epoch; every batch is filled up with unlabelled ones.

    The unlabelled rows come in passes of their own, which go on from epoch to epoch: none comes
    again before the others had their turn (but for less than a batch's, which sit a pass out). A
    batch names no row twice. Its rows are shuffled, so that every worker has some of both sorts.

    labelled, unlabelled: the rows, int64. parts: how many of each a batch has. seed: of the
    shuffling and of the unlabelled passes; `order` is that of the labelled ones.
    """

    labelled: Ints
    unlabelled: Ints
    parts: tuple[int, int]
    order: Order
    seed: int

    @property
    def rows(self) -> Ints:
        """All rows that come up, int64."""
        return np.append(self.labelled, self.unlabelled if self.parts[1] else self.unlabelled[:0])

    def __post_init__(self) -> None:
        """Raise UsageError if there are too few unlabelled rows."""
        if len(self.unlabelled) < self.parts[1]:
            raise UsageError(
                f"distill.unlabelled_ratio asks for {self.parts[1]} unlabelled rows a batch, there "
                f"are {len(self.unlabelled)}: add dataset.unlabelled, or lower the ratio"
            )

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return max(1, len(self.labelled) // self.parts[0])

    def epoch(self, epoch: int) -> list[Ints]:
        """The global batches of an epoch, int64 [sum of parts] each.

        Fewer labelled rows than a batch has place for make one, smaller batch.
        """
        labelled = cut(self.order(self.labelled, epoch), self.parts[0])
        unlabelled = self._unlabelled(epoch * self.steps)
        shuffle = generator(self.seed, epoch, _MIX)
        return [shuffle.permutation(np.concatenate([rows, next(unlabelled)])) for rows in labelled]

    def _unlabelled(self, first: int) -> Iterator[Ints]:
        """The unlabelled rows of the steps from `first` on, counted over all epochs."""
        size = self.parts[1]
        # Without any, every step is the first of its pass.
        steps = len(self.unlabelled) // size if size else 1
        number, step = divmod(first, steps)
        while True:
            order = generator(self.seed, number, _UNLABELLED_PASS).permutation(self.unlabelled)
            for i in range(step, steps):
                yield order[i * size : (i + 1) * size]
            number, step = number + 1, 0


Plan = Plain | Mixed
