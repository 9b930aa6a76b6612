"""FitNets' hint loss, arXiv 1412.6550."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from egapipe.pipeline.config.features import GRID
from egapipe.stages.distill.objectives.base import Facts, Objective, Pair
from egapipe.stages.distill.objectives.shared.allreduce import global_mean
from egapipe.stages.distill.objectives.shared.autocast import full_precision
from egapipe.stages.distill.objectives.shared.features import (
    Shapes,
    of_pair,
    one_size,
    pairs_of,
    regressors,
    renamed,
    require_kind,
)

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from egapipe.pipeline.config.objectives import FitnetOptions


def fitnet_loss(student: Tensor, teacher: Tensor, *, group: ProcessGroup | None = None) -> Tensor:
    """mean (student - teacher)^2 over all entries, a scalar.

    student, teacher: [B, ...] of one shape: embeddings, or features after the regressor. The mean
    is over the global batch.

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
    """FitNet on the embeddings, or on pairs of features, added up: the student's, through a 1 x 1
    convolution (the paper's regressor), of tokens or vectors a linear layer, against the teacher's.
    The larger of two maps, or of two lengths, is averaged down to the other."""

    needs = frozenset({"student", "teacher"})

    def __init__(self, options: FitnetOptions, pairs: Shapes | None = None) -> None:
        """pairs: what a row has of those that are compared."""
        super().__init__()
        self.options = options
        self.features = tuple(pairs or ())
        self.regressors = regressors(pairs or {})
        renamed(self, "regressor.", f"regressors.pair_{GRID}.")

    @classmethod
    def build(cls, options: FitnetOptions, facts: Facts | None) -> Self:
        """With a regressor between the widths of each pair of features.

        Raises UsageError where there is no such pair, or its sides do not go together.
        """
        pairs = pairs_of("fitnet", options, facts)
        require_kind("fitnet", pairs, 1, 2, 3)
        return cls(options, pairs)

    def forward(self, pair: Pair) -> Tensor:
        """`fitnet_loss` of the global batch."""
        if not self.features:
            return fitnet_loss(pair.student, pair.teacher, group=pair.group)
        return torch.stack([self._of(pair, name) for name in self.features]).sum()

    def _of(self, pair: Pair, name: str) -> Tensor:
        with full_precision(*one_size(*pair.sides(name))) as (student, teacher):
            predicted = of_pair(self.regressors, name)(student)
            return fitnet_loss(predicted, teacher, group=pair.group)
