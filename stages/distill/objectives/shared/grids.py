"""Feature maps before pooling, where an objective compares those."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional as F

from egapipe.pipeline.errors import UsageError
from egapipe.stages.distill.objectives.base import Facts

if TYPE_CHECKING:
    from egapipe.pipeline.config.objectives import ObjectiveConfig


def on_grids(config: ObjectiveConfig) -> list[str]:
    """Names of the configured objectives that compare grids."""
    return [name for name, options in config if getattr(options, "features", None) == "grid"]


def grid_widths(
    name: str, facts: Facts | None, instead: str = "set it to nodes"
) -> tuple[int, int]:
    """Widths of the student's and the teacher's grid.

    Raises UsageError where there is none, for the objective of that name, and says what to do
    instead of extracting them.
    """
    if facts is None or facts.student_channels is None or facts.teacher_channels is None:
        raise UsageError(
            f"distill.objective.{name}.features is grid, but student or store has no grid: "
            f"extract the teacher's grid features too (teacher.grid), or {instead}"
        )
    return facts.student_channels, facts.teacher_channels


def one_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both grids [B, F, H, W] averaged down to the smaller height and the smaller width."""
    size = (min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3]))
    return F.adaptive_avg_pool2d(student, size), F.adaptive_avg_pool2d(teacher, size)
