"""Knowledge distillation with the reused teacher classifier (SimKD), arXiv 2203.14001."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from egapipe.stages.distill.objectives.base import Objective, Pair
from egapipe.stages.distill.objectives.fitnet import fitnet_loss

if TYPE_CHECKING:
    from egapipe.pipeline.config.objectives import SimkdOptions


class Simkd(Objective):
    """mean (s - t)^2 over the nodes' entries, while both sides share the teacher's classifier.

    The teacher's head is learned first, on the stored features, whatever `head.mode` says; then its
    classifier is the student's too, and frozen. The student's node layer is the projector:
    what it makes of the backbone's features is regressed on the teacher's nodes, and classified as
    they are.

    Source: Chen et al. 2022, eq. 2, where nothing but this trains the student (`ce_weight: 0`). The
    public code's projector has three convolutions and works on maps; here it is linear.
    """

    needs = frozenset({"student", "teacher"})
    fitted: ClassVar[bool] = True
    reused: ClassVar[frozenset[str]] = frozenset({"classifier"})

    def __init__(self, options: SimkdOptions) -> None:
        super().__init__()
        self.options = options

    def forward(self, pair: Pair) -> Tensor:
        """`fitnet_loss` of the global batch's nodes."""
        return fitnet_loss(pair.student, pair.teacher, group=pair.group)
