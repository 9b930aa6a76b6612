"""FitNets' hint loss, arXiv 1412.6550."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, cast

from torch import Tensor, nn

from egapipe.stages.distill.objectives.base import Facts, Objective, Pair
from egapipe.stages.distill.objectives.shared.allreduce import global_mean
from egapipe.stages.distill.objectives.shared.autocast import full_precision
from egapipe.stages.distill.objectives.shared.grids import grid_widths, one_size

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from egapipe.pipeline.config.objectives import FitnetOptions


def fitnet_loss(student: Tensor, teacher: Tensor, *, group: ProcessGroup | None = None) -> Tensor:
    """mean (student - teacher)^2 over all entries, a scalar.

    student, teacher: [B, ...] of one shape: embeddings, or grids after the regressor. The mean is
    over the global batch.

    Source: Romero et al. 2015, eq. 3, which takes half the sum over a row's entries and trains in
    two stages; the public code takes the mean, in one stage beside the cross-entropy.

    Computed in float32 at least. No rows give 0. Raises ValueError for shapes that differ.
    """
    if student.shape != teacher.shape or student.dim() < 2:
        shapes = f"student {list(student.shape)}, teacher {list(teacher.shape)}"
        raise ValueError(f"FitNet needs two [B, ...] tensors of one shape: {shapes}")
    with full_precision(student, teacher) as (student, teacher):
        return global_mean((student - teacher).square().flatten(1).mean(dim=1), group)


class Fitnet(Objective):
    """FitNet on the embeddings, or on grids: the student's, through a 1 x 1 convolution (the
    paper's regressor), against the teacher's. The finer grid is averaged down to the other."""

    needs = frozenset({"student", "teacher"})

    def __init__(self, options: FitnetOptions, regressor: nn.Module | None = None) -> None:
        super().__init__()
        self.options = options
        self.regressor = regressor
        if options.features == "grid":
            self.needs = frozenset({"student_grid", "teacher_grid"})

    @classmethod
    def build(cls, options: FitnetOptions, facts: Facts | None) -> Self:
        """With a regressor between the widths of the grids, where they are what is compared.

        Raises UsageError where there are none.
        """
        if options.features != "grid":
            return cls(options)
        student, teacher = grid_widths("fitnet", facts)
        return cls(options, nn.Conv2d(student, teacher, kernel_size=1))

    def forward(self, pair: Pair) -> Tensor:
        """`fitnet_loss` of the global batch."""
        if self.regressor is None:
            return fitnet_loss(pair.student, pair.teacher, group=pair.group)
        grids = one_size(pair.need("student_grid"), pair.need("teacher_grid"))
        with full_precision(*grids) as (student, teacher):
            return fitnet_loss(cast(Tensor, self.regressor(student)), teacher, group=pair.group)
