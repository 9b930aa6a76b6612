"""Decoupled Knowledge Distillation (DKD), arXiv 2203.08679."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from egapipe.stages.distill.objectives.base import Objective, Pair
from egapipe.stages.distill.objectives.kd import divergence
from egapipe.stages.distill.objectives.shared.allreduce import global_mean
from egapipe.stages.distill.objectives.shared.autocast import full_precision
from egapipe.stages.distill.objectives.shared.shapes import check_labels, check_logits

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from egapipe.pipeline.config.objectives import DkdOptions


def dkd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    target_weight: float = 1.0,
    other_weight: float = 8.0,
    temperature: float = 4.0,
    group: ProcessGroup | None = None,
) -> Tensor:
    """T^2 * mean_i ( target_weight * KL(b^t_i || b^s_i) + other_weight * KL(o^t_i || o^s_i) ).

    Of softmax(logits / T), b is (probability of the target, of all other classes) and o the
    distribution among the other classes, as if the target were none. student_logits,
    teacher_logits: [B, C]. labels: integer [B], the targets. The mean is over the global batch.

    Source: Zhao, Cui, Song, Qiu and Liang 2022, eq. 7; weights are alpha and beta there. A row
    without a label (-1), which the paper does not have, has the teacher's first class as target.
    The public trainer lets the weight rise over the first 20 epochs, and this does not.

    Computed in float32 at least, with logarithms of probabilities throughout. No rows give 0.
    Raises ValueError for shapes that do not fit.
    """
    check_logits("DKD", student_logits, teacher_logits)
    check_labels("DKD", labels, student_logits)
    with full_precision(student_logits, teacher_logits) as (student, teacher):
        target = torch.where(labels < 0, teacher.argmax(dim=1), labels)[:, None]
        student, teacher = student / temperature, teacher / temperature
        # As if the target were no class.
        least = torch.finfo(student.dtype).min
        s_rest, t_rest = student.scatter(1, target, least), teacher.scatter(1, target, least)
        p = _target_and_rest(teacher, t_rest, target)
        q = _target_and_rest(student, s_rest, target)
        losses = target_weight * divergence(p, q) + other_weight * divergence(t_rest, s_rest)
        return temperature**2 * global_mean(losses, group)


def _target_and_rest(logits: Tensor, rest: Tensor, target: Tensor) -> Tensor:
    """Logits [B, 2] of the target and of all other classes together."""
    return torch.cat([logits.gather(1, target), rest.logsumexp(dim=1, keepdim=True)], dim=1)


class Dkd(Objective):
    """DKD with the options of the configuration."""

    needs = frozenset({"student_logits", "teacher_logits", "labels"})

    def __init__(self, options: DkdOptions) -> None:
        super().__init__()
        self.options = options

    def forward(self, pair: Pair) -> Tensor:
        """`dkd_loss` of the global batch."""
        options = self.options
        return dkd_loss(
            pair.need("student_logits"),
            pair.need("teacher_logits"),
            pair.need("labels"),
            target_weight=options.target_weight,
            other_weight=options.other_weight,
            temperature=options.temperature,
            group=pair.group,
        )
