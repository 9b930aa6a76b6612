"""Distillation from a Stronger Teacher (DIST), arXiv 2205.10536."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from egapipe.stages.distill.objectives.base import Objective, Pair
from egapipe.stages.distill.objectives.shared.allreduce import global_mean
from egapipe.stages.distill.objectives.shared.autocast import full_precision
from egapipe.stages.distill.objectives.shared.pearson import column_correlations, rounding
from egapipe.stages.distill.objectives.shared.shapes import check_logits

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from egapipe.pipeline.config.objectives import DistOptions

EPS = 1e-8


def dist_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    inter_weight: float = 1.0,
    intra_weight: float = 1.0,
    temperature: float = 1.0,
    group: ProcessGroup | None = None,
) -> Tensor:
    """T^2 ( inter_weight * mean_i (1 - r(p_i, q_i)) + intra_weight * mean_c (1 - r(p^c, q^c)) ).

    p, q = softmax(logits / T) of teacher and student, r is Pearson's correlation: of a row over the
    classes, and of a class over the rows. student_logits, teacher_logits: [B, C]. Every row counts,
    labelled or not.

    Source: Huang, You, Wang, Qian and Xu 2022, eqs. 6 to 9; weights are beta and gamma there. eps =
    1e-8, added to the product of the norms, is the public code's.

    group: the correlation of a class is that over the rows of all workers, by two all-reduces of
    some C numbers. Computed in float32 at least. What does not vary correlates with nothing and
    receives no gradient. No rows give 0. Raises ValueError for shapes that differ or are not
    [B, C].
    """
    check_logits("DIST", student_logits, teacher_logits)
    with full_precision(student_logits, teacher_logits) as (student, teacher):
        q, p = (student / temperature).softmax(dim=1), (teacher / temperature).softmax(dim=1)
        inter = global_mean(1 - _row_correlations(q, p), group)
        columns, rows = column_correlations(q, p, group, eps=EPS)
        intra = (1 - columns).mean() * rows.clamp(max=1)
        return temperature**2 * (inter_weight * inter + intra_weight * intra)


def _row_correlations(student: Tensor, teacher: Tensor) -> Tensor:
    """Of each row with its counterpart, [B]; of probabilities."""
    s = student - student.mean(dim=1, keepdim=True)
    t = teacher - teacher.mean(dim=1, keepdim=True)
    own_s, own_t = s.square().sum(dim=1), t.square().sum(dim=1)
    # A probability is at most 1, and so is the size of its rounding.
    least = rounding(s.dtype)
    vanishes = (own_s <= least) | (own_t <= least)
    norms = own_s.masked_fill(vanishes, 1).sqrt() * own_t.masked_fill(vanishes, 1).sqrt()
    return ((s * t).sum(dim=1) / (norms + EPS)).masked_fill(vanishes, 0)


class Dist(Objective):
    """DIST with the options of the configuration."""

    needs = frozenset({"student_logits", "teacher_logits"})

    def __init__(self, options: DistOptions) -> None:
        super().__init__()
        self.options = options

    def forward(self, pair: Pair) -> Tensor:
        """`dist_loss` of the batch: all workers' rows, or with scope "local" this worker's."""
        options = self.options
        return dist_loss(
            pair.need("student_logits"),
            pair.need("teacher_logits"),
            inter_weight=options.inter_weight,
            intra_weight=options.intra_weight,
            temperature=options.temperature,
            group=pair.group_of(options.scope),
        )
