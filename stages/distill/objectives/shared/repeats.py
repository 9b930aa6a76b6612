"""Rows that a graph has more than once, in the global batch or in what is remembered beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from egapipe.stages.distill.objectives.shared.gather import global_rows

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def repeated(rows: Tensor) -> Tensor:
    """bool [B, B]: pairs of places, not of a place and itself, that have one row, int64 [B]."""
    same = rows[:, None] == rows[None, :]
    return same & ~torch.eye(len(rows), dtype=torch.bool, device=rows.device)


def repeated_squares(
    left: Tensor, right: Tensor, rows: Tensor, group: ProcessGroup | None
) -> Tensor:
    """Sum of <left_i, right_j>^2 over the `repeated` pairs of all workers' rows, a scalar.

    left, right: [B, D]. rows: int64 [B]. Only places whose row comes again are gathered and
    compared. How many these are is looked at, for which a GPU is waited. The gradient follows the
    convention of `global_rows`.
    """
    [every] = global_rows([rows], group)
    found, counts = every.unique(return_counts=True)
    mine = torch.isin(rows, found[counts > 1])
    left, right, rows = global_rows([left[mine], right[mine], rows[mine]], group)
    return ((left @ right.T).square() * repeated(rows)).sum()
