"""Attention transfer, arXiv 1612.03928."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from egapipe.stages.distill.objectives.base import Facts, Objective, Pair
from egapipe.stages.distill.objectives.shared.allreduce import global_mean
from egapipe.stages.distill.objectives.shared.autocast import full_precision
from egapipe.stages.distill.objectives.shared.directions import directions
from egapipe.stages.distill.objectives.shared.features import (
    one_size,
    pairs_of,
    places,
    require_kind,
)
from egapipe.stages.distill.objectives.shared.shapes import check_places

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from egapipe.pipeline.config.objectives import AtOptions


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


class At(Objective):
    """Attention transfer on pairs of features, added up."""

    needs: frozenset[str] = frozenset()

    def __init__(self, options: AtOptions, features: tuple[str, ...]) -> None:
        """features: the pairs that are compared."""
        super().__init__()
        self.options = options
        self.features = features

    @classmethod
    def build(cls, options: AtOptions, facts: Facts | None) -> Self:
        """Raises UsageError where there are no such features, or they have no places."""
        pairs = pairs_of("at", options, facts)
        require_kind("at", pairs, 2, 3)
        return cls(options, tuple(pairs))

    def forward(self, pair: Pair) -> Tensor:
        """`at_loss` of the global batch."""
        sides = [pair.sides(name) for name in self.features]
        return torch.stack([at_loss(s, t, group=pair.group) for s, t in sides]).sum()
