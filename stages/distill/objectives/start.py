"""What an objective may fit a part of its own on, before the student starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Cached:
    """What is stored of a batch that the student will meet, of all workers.

    features: float32 [B, F] of the teacher, standardised as configured. labels: int64 [B], -1 =
    unlabelled, or turned. rows: int64 [B] of the data set. views: int64 [B], the teacher's.
    """

    features: Tensor
    labels: Tensor
    rows: Tensor
    views: Tensor


@dataclass(frozen=True)
class Start:
    """A training before its first step.

    batches: number of an epoch to what is stored of its batches, on the device; the same on every
    worker.
    """

    batches: Callable[[int], Iterator[Cached]]
