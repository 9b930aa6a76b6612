"""Attention transfer, arXiv 1612.03928."""

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


def at_loss(student: Tensor, teacher: Tensor, *, group: ProcessGroup | None = None) -> Tensor:
    """mean over images and places of (q_s - q_t)^2, a scalar.

    q = Q / ||Q||_2 of an image, with Q [P] the mean over the channels of the squares at each place:
    where a network looks, whatever its channels are. student, teacher: maps [B, F, H, W], or tokens
    [B, P, F]; the finer side is averaged down to the other first.

    Source: Zagoruyko and Komodakis 2017, eq. 2, which takes half the distance itself, a sum over
    levels; their public code and the CRD benchmark's take the mean of its squared entries, as here.

    The mean is over the global batch. Computed in float32 at least. An image of zeros has no
    attention, and no gradient. No rows give 0. Raises ValueError for shapes that do not fit.
    """
    check_places("attention transfer", student, teacher)
    student, teacher = one_size(student, teacher)
    with full_precision(student, teacher) as (student, teacher):
        apart = attention(student) - attention(teacher)
        return global_mean(apart.square().mean(dim=1), group)


def attention(features: Tensor) -> Tensor:
    """[B, P], rows of unit norm: the share of each place in the squares of an image."""
    return directions(places(features).square().mean(dim=2))


class At(Placewise):
    """Attention transfer on pairs of features, added up."""

    name = "at"

    def loss(self, student: Tensor, teacher: Tensor, group: ProcessGroup | None) -> Tensor:
        """`at_loss` of a pair."""
        return at_loss(student, teacher, group=group)
