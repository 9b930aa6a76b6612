"""Knowledge distillation of standardised predictions (LSKD), arXiv 2403.01427."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from egapipe.stages.distill.objectives.base import Objective, Pair
from egapipe.stages.distill.objectives.kd import divergence
from egapipe.stages.distill.objectives.shared.allreduce import global_mean
from egapipe.stages.distill.objectives.shared.autocast import full_precision
from egapipe.stages.distill.objectives.shared.shapes import check_logits
from egapipe.stages.distill.objectives.shared.zscore import zscores

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from egapipe.pipeline.config.objectives import LskdOptions


def lskd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    temperature: float = 2.0,
    group: ProcessGroup | None = None,
) -> Tensor:
    """T^2 * mean_i KL(p_i || q_i), with p, q = softmax(Z(logits) / T) of teacher and student.

    Z(x) = (x - mean(x)) / std(x) of a row: the student matches the order and the proportions of the
    teacher's logits, and is free in their size. student_logits, teacher_logits: [B, C]. Every row
    counts, labelled or not; the mean is over the global batch.

    Source: Sun, Ren, Li, Wang and Cao, CVPR 2024, algorithm 1. The public code adds 1e-7 to the
    standard deviation, and this does not.

    Computed in float32 at least. Logits without variance give even predictions, and receive no
    gradient. No rows give 0. Raises ValueError for shapes that differ or are not [B, C].
    """
    check_logits("LSKD", student_logits, teacher_logits)
    with full_precision(student_logits, teacher_logits) as (student, teacher):
        p, q = zscores(teacher) / temperature, zscores(student) / temperature
        return temperature**2 * global_mean(divergence(p, q), group)


class Lskd(Objective):
    """LSKD with the options of the configuration."""

    needs = frozenset({"student_logits", "teacher_logits"})

    def __init__(self, options: LskdOptions) -> None:
        super().__init__()
        self.options = options

    def forward(self, pair: Pair) -> Tensor:
        """`lskd_loss` of the global batch."""
        return lskd_loss(
            pair.need("student_logits"),
            pair.need("teacher_logits"),
            temperature=self.options.temperature,
            group=pair.group,
        )
