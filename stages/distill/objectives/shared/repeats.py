"""Rows that a graph has more than once, in the global batch or in what is remembered beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from egapipe.stages.distill.objectives.shared.allreduce import count_workers
from egapipe.stages.distill.objectives.shared.gather import global_rows

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


PAIRS = 2**24
"""Pairs of rows that a GPU compares at a time."""


def repeated(rows: Tensor) -> Tensor:
    """bool [B, B]: pairs of places, not of a place and itself, that have one row, int64 [B]."""
    same = rows[:, None] == rows[None, :]
    return same & ~torch.eye(len(rows), dtype=torch.bool, device=rows.device)


def repeated_squares(
    left: Tensor, right: Tensor, rows: Tensor, group: ProcessGroup | None
) -> Tensor:
    """Sum of <left_i, right_j>^2 over the `repeated` pairs of all workers' rows, a scalar.

    left, right: [B, D]. rows: int64 [B]. Only places whose row comes again are gathered and
    compared, each with those of its row. How many these are is looked at; a GPU would be waited
    for, and where it has all rows it compares each with each instead, some at a time. Either way
    memory grows with B, not with its square. The gradient follows the convention of `global_rows`.
    """
    if looking_waits(left) and count_workers(group) == 1:
        return _of_all_pairs(left, right, rows)
    [every] = global_rows([rows], group)
    found, counts = every.unique(return_counts=True)
    mine = torch.isin(rows, found[counts > 1])
    left, right, rows = global_rows([left[mine], right[mine], rows[mine]], group)
    return _of_runs(left, right, rows, int(counts.max()) if len(counts) else 0)


def looking_waits(tensor: Tensor) -> bool:
    """Whether a look at a value on its device holds up what is launched there."""
    return tensor.device.type == "cuda"


def _of_runs(left: Tensor, right: Tensor, rows: Tensor, longest: int) -> Tensor:
    """longest: how often a row comes at most."""
    order = rows.argsort(stable=True)
    left, right, rows = left[order], right[order], rows[order]
    total = left.new_zeros(())
    for apart in range(1, longest):
        same = rows[apart:] == rows[:-apart]
        for one, other in ((left[:-apart], right[apart:]), (left[apart:], right[:-apart])):
            total = total + _again(_of_places, one, other, same)
    return total


def _of_places(left: Tensor, right: Tensor, same: Tensor) -> Tensor:
    return ((left * right).sum(dim=1).square() * same).sum()


def _of_all_pairs(left: Tensor, right: Tensor, rows: Tensor) -> Tensor:
    places = torch.arange(len(rows), device=rows.device)
    total, block = left.new_zeros(()), max(1, PAIRS // max(1, len(rows)))
    for start in range(0, len(rows), block):
        part = slice(start, start + block)
        known = (left[part], rows[part], places[part], right, rows, places)
        total = total + _again(_of_some_pairs, *known)
    return total


def _of_some_pairs(
    left: Tensor, own: Tensor, here: Tensor, right: Tensor, rows: Tensor, places: Tensor
) -> Tensor:
    again = (own[:, None] == rows[None, :]) & (here[:, None] != places[None, :])
    return ((left @ right.T).square() * again).sum()


def _again(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """A function's value; in the backward pass it is computed once more, and nothing is kept."""
    made: Tensor = checkpoint(function, *tensors, use_reentrant=False, preserve_rng_state=False)
    return made
