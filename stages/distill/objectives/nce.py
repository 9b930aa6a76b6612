"""Noise-Contrastive Estimation over classes (NCE), arXiv 2104.10955."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from egapipe.stages.distill.objectives.base import Objective, Pair
from egapipe.stages.distill.objectives.shared.autocast import full_precision
from egapipe.stages.distill.objectives.shared.directions import directions
from egapipe.stages.distill.objectives.shared.gather import global_rows
from egapipe.stages.distill.objectives.shared.shapes import check_labels, check_rows

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from egapipe.pipeline.config.objectives import NceOptions

EPS = 1e-10


def nce_loss(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    *,
    temperature: float = 0.1,
    group: ProcessGroup | None = None,
) -> Tensor:
    """mean_i ( mean_(j in P_i) -log(p_ij + eps) + mean_(j in N_i) -log(1 - p_ij + eps) ), a scalar.

    student, teacher: [B, D]. labels: integer [B], -1 = unlabelled. p_i = softmax over j of
    cos(student_i, teacher_j) / temperature; P_i are the teacher rows of i's class, N_i the others;
    eps = 1e-10.

    Source: the multi-class form of Chen et al. 2021, section 3, as the EGA paper's tables use it.
    It differs from InfoNCE (arXiv 1807.03748), which has one positive a row and no term for the
    negatives but the softmax itself; eps is the public code's.

    An unlabelled row is neither anchor nor candidate. Without negatives (one class) or without any
    label the term is 0, where the mean over nothing would be NaN.

    group: the rows of all workers are gathered. Memory is O(B^2). Computed in float32 at least. A
    zero row has the cosine 0 with all. Raises ValueError for shapes that do not fit.
    """
    check_rows("NCE", student, teacher)
    check_labels("NCE", labels, student)
    student, teacher, labels = global_rows([student, teacher, labels], group)
    with full_precision(student, teacher) as (student, teacher):
        known = labels >= 0
        pairs = known[:, None] & known[None, :]
        same = labels[:, None] == labels[None, :]
        cosines = directions(student) @ directions(teacher).T
        p = _softmax(cosines / temperature, pairs)
        positive = _row_mean(-(p + EPS).log(), pairs & same)
        negative = _row_mean(-(_complement(p) + EPS).log(), pairs & ~same)
        return (positive + negative).sum() / known.sum().clamp(min=1)


def _softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax of each row over the masked entries; a row without any is finite, and constant."""
    return scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(dim=1)


def _complement(p: Tensor) -> Tensor:
    """1 - p. For a row's largest entry the sum of the others: a p near 1 would leave nothing of the
    difference, nor of its logarithm's gradient."""
    if p.numel() == 0:
        return p
    top = p.detach().argmax(dim=1, keepdim=True)
    others = p.scatter(1, top, 0).sum(dim=1, keepdim=True)
    return (1 - p).scatter(1, top, others)


def _row_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of each row over the masked entries, 0 without any: [B]."""
    return (values * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


class Nce(Objective):
    """NCE with the options of the configuration."""

    needs = frozenset({"student", "teacher", "labels"})

    def __init__(self, options: NceOptions) -> None:
        super().__init__()
        self.options = options

    def forward(self, pair: Pair) -> Tensor:
        """`nce_loss` of the batch: of all workers' rows, or with scope "local" of this worker's."""
        return nce_loss(
            pair.student,
            pair.teacher,
            pair.need("labels"),
            temperature=self.options.temperature,
            group=pair.group_of(self.options.scope),
        )
