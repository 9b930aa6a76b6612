"""Knowledge Distillation (KD) of softened predictions, arXiv 1503.02531."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional as F

from egapipe.stages.distill.objectives.base import Objective, Pair
from egapipe.stages.distill.objectives.shared.allreduce import global_mean
from egapipe.stages.distill.objectives.shared.autocast import full_precision
from egapipe.stages.distill.objectives.shared.shapes import check_logits

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from egapipe.pipeline.config.objectives import KdOptions


def kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    temperature: float = 4.0,
    group: ProcessGroup | None = None,
) -> Tensor:
    """T^2 * mean_i KL(p_i || q_i), a scalar, with p, q = softmax(logits / T) of teacher, student.

    student_logits, teacher_logits: [B, C]. Every row counts, labelled or not; the mean is over the
    global batch.

    Source: Hinton, Vinyals and Dean 2015, section 2. The paper minimises the cross-entropy between
    p and q and leaves its scale to the reader; the public code subtracts the entropy of p, which
    changes no gradient of the student, and multiplies by T^2 so that gradients keep their size.

    Computed in float32 at least. No rows give 0. Raises ValueError for shapes that differ or are
    not [B, C].
    """
    check_logits("KD", student_logits, teacher_logits)
    with full_precision(student_logits, teacher_logits) as (student, teacher):
        return temperature**2 * global_mean(
            divergence(teacher / temperature, student / temperature), group
        )


def divergence(logits: Tensor, others: Tensor) -> Tensor:
    """KL(softmax(logits) || softmax(others)) of each row, [B]."""
    log_p, log_q = F.log_softmax(logits, dim=1), F.log_softmax(others, dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)


class Kd(Objective):
    """KD with the options of the configuration."""

    needs = frozenset({"student_logits", "teacher_logits"})

    def __init__(self, options: KdOptions) -> None:
        super().__init__()
        self.options = options

    def forward(self, pair: Pair) -> Tensor:
        """`kd_loss` of the global batch."""
        return kd_loss(
            pair.need("student_logits"),
            pair.need("teacher_logits"),
            temperature=self.options.temperature,
            group=pair.group,
        )
