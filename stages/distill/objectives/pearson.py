"""Pearson correlation between rows."""

import torch
from torch import Tensor


def unit_rows(rows: Tensor) -> Tensor:
    """Rows centred over their D entries and scaled to unit norm: Pearson correlation is Z Z'.

    rows: floating [N, D], D >= 1; the result has its shape and dtype. A row without variance
    (constant up to rounding) becomes zero and receives no gradient: it correlates with nothing,
    itself included. NaN and infinite entries make their row NaN.
    """
    precision = torch.finfo(rows.dtype)
    # Correlation does not depend on the scale, so a detached one leaves the gradient as it is. With
    # the largest entry at 1, squares neither overflow nor vanish and rounding has a known size.
    scale = rows.detach().abs().amax(dim=1, keepdim=True).clamp_min(precision.tiny**0.5)
    scaled = rows / scale
    centred = scaled - scaled.mean(dim=1, keepdim=True)
    norm = torch.linalg.vector_norm(centred, dim=1, keepdim=True)
    flat = norm <= 8 * precision.eps * rows.shape[1] ** 0.5
    # The inner `where` keeps the division, and so its gradient, finite on flat rows.
    return torch.where(flat, 0, centred / torch.where(flat, 1, norm))


def correlation(student: Tensor, teacher: Tensor) -> Tensor:
    """Pearson correlation matrix [2B, 2B] of the stacked rows [teacher; student].

    student, teacher: floating [B, D]. Its blocks are the matrices of EGA (arXiv 2211.13264):
    [[E_t, N_st], [N_st', E_s]]. Rows and columns of a row without variance are zero.
    """
    unit = unit_rows(torch.cat([teacher, student]))
    return unit @ unit.T
