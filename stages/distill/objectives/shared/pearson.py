"""Pearson correlation between rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from egapipe.stages.distill.objectives.shared.allreduce import global_sums
from egapipe.stages.distill.objectives.shared.directions import scale, unit

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def unit_rows(rows: Tensor) -> Tensor:
    """Rows centred over their D entries and scaled to unit norm: Pearson correlation is Z Z'.

    rows: floating [N, D], D >= 1; the result has its shape and dtype. A row without variance
    (constant up to rounding) becomes zero and receives no gradient: it correlates with nothing,
    itself included. NaN and infinite entries make their row NaN.
    """
    scaled = rows / scale(rows)
    centred = scaled - scaled.mean(dim=1, keepdim=True)
    return unit(centred, 8 * torch.finfo(rows.dtype).eps * rows.shape[1] ** 0.5)


def correlation(student: Tensor, teacher: Tensor) -> Tensor:
    """Pearson correlation matrix [2B, 2B] of the stacked rows [teacher; student].

    student, teacher: floating [B, D]. Its blocks are the matrices of EGA (arXiv 2211.13264):
    [[E_t, N_st], [N_st', E_s]]. Rows and columns of a row without variance are zero.
    """
    rows = unit_rows(torch.cat([teacher, student]))
    return rows @ rows.T


def centred_columns(
    matrices: list[Tensor], group: ProcessGroup | None
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Each [B, D] less the mean of its columns over the rows of all workers; the sums of squares
    before that, [D] each; and the number of rows of all workers, a scalar.

    The means are constants here. In sums of products of two centred columns, which is all that may
    be made of them, their gradient cancels: the other column's sum is zero.
    """
    rows = matrices[0].new_full((), len(matrices[0]))
    with torch.no_grad():
        sums = [part for m in matrices for part in (m.sum(dim=0), m.square().sum(dim=0))]
        *sums, rows = global_sums([*sums, rows], group)
    count = rows.clamp(min=1)
    centred = [m - total / count for m, total in zip(matrices, sums[::2], strict=True)]
    return centred, sums[1::2], rows


def rounding(dtype: torch.dtype) -> float:
    """Share of a sum of squares about zero up to which that about the mean is rounding."""
    return (8 * float(torch.finfo(dtype).eps)) ** 2


def column_correlations(
    student: Tensor, teacher: Tensor, group: ProcessGroup | None, *, eps: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Pearson correlation of each column with its counterpart over the rows of all workers, [D],
    and how many rows these are, a scalar.

    student, teacher: [B, D]. eps: is added to the product of the norms. A column without variance
    (constant up to rounding) correlates with nothing and receives no gradient.
    """
    (s, t), (square_s, square_t), rows = centred_columns([student, teacher], group)
    products = [(s * t).sum(dim=0), s.square().sum(dim=0), t.square().sum(dim=0)]
    between, own_s, own_t = global_sums(products, group)
    least = rounding(s.dtype)
    vanishes = (own_s <= least * square_s) | (own_t <= least * square_t)
    norms = own_s.masked_fill(vanishes, 1).sqrt() * own_t.masked_fill(vanishes, 1).sqrt()
    return (between / (norms + eps)).masked_fill(vanishes, 0), rows
