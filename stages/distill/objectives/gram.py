"""Gram anchoring: the patches' similarities to each other, arXiv 2508.10104."""

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


def gram_loss(student: Tensor, teacher: Tensor, *, group: ProcessGroup | None = None) -> Tensor:
    """mean over images of ||X_s X_s' - X_t X_t'||_F^2 / P^2, a scalar.

    X [P, F] are the P = H W places of an image's grid, each scaled to unit norm: what is compared
    is how alike an image's places are, so widths F may differ. student, teacher: [B, F, H, W], or
    tokens [B, P, F]; the finer side is averaged down to the other first.

    Source: Simeoni et al. 2025, section 4.2, where the other grid is an earlier self's; the public
    code takes the mean over entries too.

    The mean is over the global batch. Computed in float32 at least. A place of zeros resembles
    none, itself included. No rows give 0. Raises ValueError for shapes that do not fit.
    """
    check_places("gram", student, teacher)
    student, teacher = one_size(student, teacher)
    with full_precision(student, teacher) as (student, teacher):
        apart = _similarities(student) - _similarities(teacher)
        return global_mean(apart.square().flatten(1).mean(dim=1), group)


def _similarities(features: Tensor) -> Tensor:
    """Cosines between the places of each image, [B, P, P]."""
    unit = directions(places(features))
    return unit @ unit.mT


class Gram(Placewise):
    """Gram anchoring on pairs of features, added up."""

    name = "gram"

    def loss(self, student: Tensor, teacher: Tensor, group: ProcessGroup | None) -> Tensor:
        """`gram_loss` of a pair."""
        return gram_loss(student, teacher, group=group)
