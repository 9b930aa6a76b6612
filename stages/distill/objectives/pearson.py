"""Pearson correlation between rows."""

import torch
from torch import Tensor

from egapipe.stages.distill.objectives.directions import scale, unit


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
