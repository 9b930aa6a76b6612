"""Information-Theoretic Representation Distillation (ITRD), arXiv 2112.00459."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from egapipe.stages.distill.objectives.base import Objective, Pair
from egapipe.stages.distill.objectives.shared.autocast import full_precision
from egapipe.stages.distill.objectives.shared.directions import directions
from egapipe.stages.distill.objectives.shared.gather import global_rows
from egapipe.stages.distill.objectives.shared.pearson import column_correlations
from egapipe.stages.distill.objectives.shared.shapes import check_rows

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from egapipe.pipeline.config.objectives import ItrdOptions


def itrd_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    correlation_weight: float = 2.0,
    mutual_weight: float = 0.05,
    alpha: float = 1.5,
    group: ProcessGroup | None = None,
) -> Tensor:
    """correlation_weight * L_corr + mutual_weight * L_mi, a scalar that may be below 0.

        L_corr = log2 sum_d |c_d - 1|^(2 alpha),   c_d = (B - 1)/B r(s^d, t^d)
        L_mi   = ||G_s||_F^2 - ||G_st||_F^2,       G = Z Z' / tr(Z Z'),  G_st = G_s * G_t / trace

    r is Pearson's correlation of the d-th entries over the rows, Z has rows of unit length, and *
    is entry by entry. student, teacher: [B, D].

    Source: Miles, Rodriguez and Mikolajczyk 2022, eqs. 5 and 9. As in the public code, c is a mean
    of products of values that were divided by the standard deviation of a sample, hence (B - 1)/B,
    and L_mi leaves out the logarithms. The student's linear layer of that code is the node layer
    here.

    group: correlations over the rows of all workers, and their rows are gathered for G. Memory is
    O(B^2). Computed in float32 at least. An entry that does not vary correlates with nothing; it
    and a zero row receive no gradient. No rows give 0. Raises ValueError for shapes that differ or
    are not [B, D].
    """
    check_rows("ITRD", student, teacher)
    with full_precision(student, teacher) as (student, teacher):
        correlations, rows = column_correlations(student, teacher, group)
        apart = 1 - correlations * (rows - 1).clamp(min=0) / rows.clamp(min=1)
        total = apart.abs().pow(2 * alpha).sum().clamp(min=torch.finfo(apart.dtype).tiny)
        mutual = _mutual(*global_rows([student, teacher], group))
        loss = correlation_weight * total.log2() + mutual_weight * mutual
        return loss * rows.clamp(max=1)


def _mutual(student: Tensor, teacher: Tensor) -> Tensor:
    """||G_s||_F^2 - ||G_st||_F^2."""
    zs, zt = directions(student), directions(teacher)
    own = zs @ zs.T
    both = own * (zt @ zt.T)
    return _energy(own) - _energy(both)


def _energy(gram: Tensor) -> Tensor:
    """||G||_F^2 of a Gram matrix over its trace; 0 of one that is zero."""
    trace = gram.diagonal().sum()
    return gram.square().sum() / trace.masked_fill(trace <= 0, 1).square()


class Itrd(Objective):
    """ITRD with the options of the configuration."""

    needs = frozenset({"student", "teacher"})

    def __init__(self, options: ItrdOptions) -> None:
        super().__init__()
        self.options = options

    def forward(self, pair: Pair) -> Tensor:
        """`itrd_loss` of the batch: all workers' rows, or with scope "local" this worker's."""
        options = self.options
        return itrd_loss(
            pair.student,
            pair.teacher,
            correlation_weight=options.correlation_weight,
            mutual_weight=options.mutual_weight,
            alpha=options.alpha,
            group=pair.group_of(options.scope),
        )
