"""Ratios on noisy machines: two things timed in turn, many times, and the median of the ratios."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from egapipe.pipeline.mathematics.timing import timed


@dataclass(frozen=True)
class Paired:
    """Median seconds of two things, and the median of their ratios pair by pair."""

    ours: float
    reference: float
    ratio: float


def paired(
    ours: Callable[[], object], reference: Callable[[], object], *, repeats: int, warmup: int = 1
) -> Paired:
    """Time two things in turn; ratio = ours / reference.

    The order within a pair alternates, so that neither always runs on the caches the other warmed.
    """
    for _ in range(warmup):
        ours()
        reference()
    pairs = []
    for repeat in range(repeats):
        if repeat % 2:
            second = timed(reference)
            pairs.append((timed(ours), second))
        else:
            pairs.append((timed(ours), timed(reference)))
    return Paired(
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
        statistics.median(a / b for a, b in pairs),
    )
