"""Gram anchoring: the patches' similarities to each other, arXiv 2508.10104."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from torch import Tensor

from egapipe.stages.distill.objectives.base import Facts, Objective, Pair
from egapipe.stages.distill.objectives.shared.allreduce import global_mean
from egapipe.stages.distill.objectives.shared.autocast import full_precision
from egapipe.stages.distill.objectives.shared.directions import directions
from egapipe.stages.distill.objectives.shared.grids import grid_widths, one_size

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from egapipe.pipeline.config.objectives import GramOptions


def gram_loss(student: Tensor, teacher: Tensor, *, group: ProcessGroup | None = None) -> Tensor:
    """mean over images of ||X_s X_s' - X_t X_t'||_F^2 / P^2, a scalar.

    X [P, F] are the P = H W places of an image's grid, each scaled to unit norm: what is compared
    is how alike an image's places are, so widths F may differ. student, teacher: [B, F, H, W].

    Source: Simeoni et al. 2025, section 4.2, where the other grid is an earlier self's; the public
    code takes the mean over entries too.

    The mean is over the global batch. Computed in float32 at least. A place of zeros resembles
    none, itself included. No rows give 0. Raises ValueError for shapes that do not fit.
    """
    ranks = student.dim() == teacher.dim() == 4
    if not ranks or len(student) != len(teacher) or student.shape[2:] != teacher.shape[2:]:
        shapes = f"student {list(student.shape)}, teacher {list(teacher.shape)}"
        raise ValueError(f"gram needs two [B, F, H, W] grids of as many places: {shapes}")
    with full_precision(student, teacher) as (student, teacher):
        apart = _similarities(student) - _similarities(teacher)
        return global_mean(apart.square().flatten(1).mean(dim=1), group)


def _similarities(grids: Tensor) -> Tensor:
    """Cosines between the places of each image, [B, P, P]."""
    places = directions(grids.flatten(2).mT)
    return places @ places.mT


class Gram(Objective):
    """Gram anchoring on the grids; the finer one is averaged down to the other."""

    needs = frozenset({"student_grid", "teacher_grid"})

    def __init__(self, options: GramOptions) -> None:
        super().__init__()
        self.options = options

    @classmethod
    def build(cls, options: GramOptions, facts: Facts | None) -> Self:
        """Raises UsageError where there are no grids."""
        grid_widths("gram", facts, instead="leave it out")
        return cls(options)

    def forward(self, pair: Pair) -> Tensor:
        """`gram_loss` of the global batch."""
        student, teacher = one_size(pair.need("student_grid"), pair.need("teacher_grid"))
        return gram_loss(student, teacher, group=pair.group)
