"""Intra-utterance similarity preserving distillation (IUSP), arXiv 2009.01759."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from egapipe.stages.distill.objectives.shared.allreduce import global_mean
from egapipe.stages.distill.objectives.shared.autocast import full_precision
from egapipe.stages.distill.objectives.shared.directions import directions
from egapipe.stages.distill.objectives.shared.features import one_size, places
from egapipe.stages.distill.objectives.shared.placewise import Placewise
from egapipe.stages.distill.objectives.shared.shapes import check_places

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def iusp_loss(student: Tensor, teacher: Tensor, *, group: ProcessGroup | None = None) -> Tensor:
    """mean over rows of ||G_t - G_s||_F^2 / T^2, a scalar, with each row of G = Q Q' scaled to unit
    norm.

    Q [T, D] are the T frames of one row, an utterance: what is compared is how alike its frames
    are, so widths D may differ, and rows do not meet. student, teacher: [B, T, D], or maps
    [B, D, H, W], whose places are the frames; the longer side is averaged down to the other first.

    Source: Chang et al. 2020, who published no code: SP's loss (`sp_loss`) within each utterance.
    How G is scaled is SP's public code; it was not checked against the paper.

    The mean is over the global batch. Computed in float32 at least. A frame of zeros resembles
    none, itself included. No rows give 0. Raises ValueError for shapes that do not fit.
    """
    check_places("IUSP", student, teacher)
    student, teacher = one_size(student, teacher)
    with full_precision(student, teacher) as (student, teacher):
        apart = _similarities(teacher) - _similarities(student)
        return global_mean(apart.square().flatten(1).mean(dim=1), group)


def _similarities(features: Tensor) -> Tensor:
    """[B, T, T]: products of the frames of each row, every row of them of unit norm."""
    frames = places(features)
    return directions(frames @ frames.mT)


class Iusp(Placewise):
    """IUSP on pairs of features, added up."""

    name = "iusp"

    def loss(self, student: Tensor, teacher: Tensor, group: ProcessGroup | None) -> Tensor:
        """`iusp_loss` of a pair."""
        return iusp_loss(student, teacher, group=group)
