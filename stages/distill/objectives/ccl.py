"""Compositional Contrastive Learning (CCL), arXiv 2104.10955: NCE and matched predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from egapipe.stages.distill.objectives.base import Objective, Pair
from egapipe.stages.distill.objectives.kd import divergence
from egapipe.stages.distill.objectives.nce import nce_loss
from egapipe.stages.distill.objectives.shared.allreduce import global_mean
from egapipe.stages.distill.objectives.shared.autocast import full_precision

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from egapipe.pipeline.config.objectives import CclOptions


def ccl_loss(
    student: Tensor,
    teacher: Tensor,
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float = 0.1,
    group: ProcessGroup | None = None,
) -> Tensor:
    """nce_loss + 1/2 mean_i ( KL(p_i || q_i) + KL(q_i || p_i) ), a scalar.

    p, q = softmax of teacher_logits, student_logits, [B, C], at temperature 1. student, teacher:
    [B, D]. labels: integer [B], -1 = unlabelled. temperature: of the contrast.

    Source: Chen et al. 2021, section 3, as the EGA paper's tables use it. The paper first composes
    the embeddings of several teachers with the student's, and holds the predictions together by the
    Jensen-Shannon divergence; with one teacher the public code composes nothing and takes half the
    symmetric KL divergence. Unlabelled rows are left out of the contrast, not of the predictions.

    group: as in `nce_loss`. Computed in float32 at least. Raises ValueError for shapes that do not
    fit.
    """
    if student_logits.shape != teacher_logits.shape or len(student_logits) != len(student):
        shapes = f"student {list(student_logits.shape)}, teacher {list(teacher_logits.shape)}"
        raise ValueError(f"CCL needs two [B, C] logits of one shape: {shapes}")
    contrast = nce_loss(student, teacher, labels, temperature=temperature, group=group)
    with full_precision(student_logits, teacher_logits) as (q, p):
        return contrast + global_mean(divergence(p, q) + divergence(q, p), group) / 2


class Ccl(Objective):
    """CCL with the options of the configuration."""

    needs = frozenset({"student", "teacher", "student_logits", "teacher_logits", "labels"})

    def __init__(self, options: CclOptions) -> None:
        super().__init__()
        self.options = options

    def forward(self, pair: Pair) -> Tensor:
        """`ccl_loss` of the batch: of all workers' rows, or with scope "local" of this worker's."""
        return ccl_loss(
            pair.student,
            pair.teacher,
            pair.need("student_logits"),
            pair.need("teacher_logits"),
            pair.need("labels"),
            temperature=self.options.temperature,
            group=pair.group_of(self.options.scope),
        )
