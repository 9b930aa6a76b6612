"""Sums over many rows with the memory of a few."""

from collections.abc import Callable, Sequence
from typing import cast

from torch import Tensor
from torch.utils.checkpoint import checkpoint

BLOCK = 8192
"""Rows at a time: enough to keep a processor busy with matrices of a usual width."""


def sums_by_block(sums: Callable[..., Sequence[Tensor]], *columns: Tensor) -> Sequence[Tensor]:
    """`sums(*columns)`, where every result is a sum over rows, added up over blocks of BLOCK rows.

    columns: [N, ...] each. Nothing between `columns` and the sums is kept for the backward pass,
    which computes each block again (gradient checkpointing). `sums` draws no random numbers. Of at
    most BLOCK rows it is `sums(*columns)` and nothing is computed twice.
    """
    if len(columns[0]) <= BLOCK:
        return sums(*columns)
    blocks = zip(*(column.split(BLOCK) for column in columns), strict=True)
    parts = (
        cast(
            Sequence[Tensor],
            checkpoint(sums, *block, use_reentrant=False, preserve_rng_state=False),
        )
        for block in blocks
    )
    total = list(next(parts))
    for part in parts:
        total = [a + b for a, b in zip(total, part, strict=True)]
    return total
