"""What a sampler knows of the rows that it orders."""

from collections.abc import Callable
from dataclasses import dataclass

from egapipe.stages.distill.data.rows.links import Links
from egapipe.stages.distill.data.rows.order import Ints
from egapipe.stages.distill.data.rows.samplers.search import Nearest


@dataclass(frozen=True)
class Pool:
    """The rows that a pass goes over, and what may decide their order.

    rows: int64 [M], of the training's N rows. labels: int64 [N], -1 = unlabelled. nearest: gives
    int32 [N, K], for each row the others that are nearest to it in teacher space, nearest first,
    -1 where there are none; it is asked only by who needs it. group: rows of a group of neighbours,
    at most. batch: rows of a batch, by which an order is cut; None: all are one. links: which of
    the N rows the data set's pairs join, where it has some.
    """

    rows: Ints
    labels: Ints
    seed: int
    group: int
    nearest: Callable[[], Nearest]
    batch: int | None = None
    links: Links | None = None
