"""Standardised regression: UNIC, arXiv 2408.05088, and DUNE, arXiv 2503.14405."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, cast

from torch import Tensor, nn
from torch.nn import functional as F

from egapipe.stages.distill.objectives.base import Facts, Objective, Pair
from egapipe.stages.distill.objectives.shared.allreduce import global_mean
from egapipe.stages.distill.objectives.shared.autocast import full_precision
from egapipe.stages.distill.objectives.shared.directions import directions
from egapipe.stages.distill.objectives.shared.grids import grid_widths, one_size

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from egapipe.pipeline.config.objectives import UnicOptions


def unic_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    cosine_weight: float = 0.5,
    smooth_weight: float = 0.5,
    group: ProcessGroup | None = None,
) -> Tensor:
    """mean of cosine_weight * (1 - cos(s, t)) + smooth_weight * mean_d h(s_d - t_d), a scalar.

    h is the Huber loss with delta 1, and the mean is over rows and places. student, teacher:
    [B, D], or grids [B, D, H, W] of one shape, whose vectors are those of each place.

    Source: Sariyildiz et al. 2024, section 3.1, and 2025, section 3. Both standardise the teacher's
    features, as `distill.standardize: zscore` does.

    The mean is over the global batch. Computed in float32 at least. A zero row has the cosine 0. No
    rows give 0. Raises ValueError for shapes that differ.
    """
    if student.shape != teacher.shape or student.dim() not in (2, 4):
        shapes = f"student {list(student.shape)}, teacher {list(teacher.shape)}"
        raise ValueError(f"UNIC needs two [B, D] or [B, D, H, W] tensors of one shape: {shapes}")
    with full_precision(student, teacher) as (student, teacher):
        s, t = _places(student), _places(teacher)
        cosine = (directions(s) * directions(t)).sum(dim=2)
        smooth = F.smooth_l1_loss(s, t, reduction="none").mean(dim=2)
        losses = cosine_weight * (1 - cosine) + smooth_weight * smooth
        return global_mean(losses.mean(dim=1), group)


def _places(rows: Tensor) -> Tensor:
    """[B, P, D]: the vectors of each row."""
    return rows.flatten(2).mT if rows.dim() == 4 else rows[:, None]


class Unic(Objective):
    """UNIC on the teacher's features, or on its grids. A linear layer takes the student's node to
    their width, a 1 x 1 convolution its maps; the finer grid is averaged down to the other."""

    needs = frozenset({"student", "teacher_features"})

    def __init__(self, options: UnicOptions, projector: nn.Module) -> None:
        super().__init__()
        self.options = options
        self.projector = projector
        if options.features == "grid":
            self.needs = frozenset({"student_grid", "teacher_grid"})

    @classmethod
    def build(cls, options: UnicOptions, facts: Facts | None) -> Self:
        """Raises UsageError where grids are compared and there are none, ValueError without
        facts."""
        if options.features == "grid":
            return cls(options, nn.Conv2d(*grid_widths("unic", facts), kernel_size=1))
        if facts is None:
            raise ValueError("unic is built for a teacher: give build_objective its facts")
        return cls(options, nn.Linear(facts.student_dim, facts.teacher_features))

    def forward(self, pair: Pair) -> Tensor:
        """`unic_loss` of the global batch."""
        if self.options.features == "grid":
            sides = one_size(pair.need("student_grid"), pair.need("teacher_grid"))
        else:
            sides = (pair.student, pair.need("teacher_features"))
        with full_precision(*sides) as (student, teacher):
            return unic_loss(
                cast(Tensor, self.projector(student)),
                teacher,
                cosine_weight=self.options.cosine_weight,
                smooth_weight=self.options.smooth_weight,
                group=pair.group,
            )
