"""Standardised regression: UNIC, arXiv 2408.05088, and DUNE, arXiv 2503.14405."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from egapipe.pipeline.config.features import GRID
from egapipe.stages.distill.objectives.base import Facts, Objective, Pair, required
from egapipe.stages.distill.objectives.shared.allreduce import global_mean
from egapipe.stages.distill.objectives.shared.autocast import full_precision
from egapipe.stages.distill.objectives.shared.directions import directions
from egapipe.stages.distill.objectives.shared.features import (
    of_pair,
    one_size,
    pairs_of,
    places,
    regressors,
    renamed,
    require_kind,
)

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
    [B, D], or tokens [B, T, D] or maps [B, D, H, W] of one shape, whose vectors are those of each
    place.

    Source: Sariyildiz et al. 2024, section 3.1, and 2025, section 3. Both standardise the teacher's
    features, as `distill.standardize: zscore` does.

    The mean is over the global batch. Computed in float32 at least. A zero row has the cosine 0. No
    rows give 0. Raises ValueError for shapes that differ.
    """
    if student.shape != teacher.shape or student.dim() not in (2, 3, 4):
        shapes = f"student {list(student.shape)}, teacher {list(teacher.shape)}"
        raise ValueError(f"UNIC needs two [B, D], [B, T, D] or [B, D, H, W] of one shape: {shapes}")
    with full_precision(student, teacher) as (student, teacher):
        s, t = places(student), places(teacher)
        cosine = (directions(s) * directions(t)).sum(dim=2)
        smooth = F.smooth_l1_loss(s, t, reduction="none").mean(dim=2)
        losses = cosine_weight * (1 - cosine) + smooth_weight * smooth
        return global_mean(losses.mean(dim=1), group)


class Unic(Objective):
    """UNIC on the teacher's features, or on pairs of features, added up. A linear layer takes the
    student's node, tokens or vectors to their width, a 1 x 1 convolution its maps; the finer of two
    maps, and the longer of two lengths, is averaged down to the other."""

    needs = frozenset({"student", "teacher_features"})

    def __init__(
        self,
        options: UnicOptions,
        projector: nn.Module | None = None,
        projectors: nn.ModuleDict | None = None,
        features: tuple[str, ...] = (),
    ) -> None:
        """projector: of the node. projectors: of the pairs that are compared in its place."""
        super().__init__()
        self.options = options
        self.features = features
        if features:
            self.needs = frozenset()
            self.projectors = projectors or nn.ModuleDict()
            renamed(self, "projector.", f"projectors.pair_{GRID}.")
        else:
            self.projector = projector or nn.Identity()

    @classmethod
    def build(cls, options: UnicOptions, facts: Facts | None) -> Self:
        """Raises UsageError where there is no such pair of features, or its sides do not go
        together, ValueError without facts."""
        pairs = pairs_of("unic", options, facts)
        if pairs:
            require_kind("unic", pairs, 1, 2, 3)
            return cls(options, projectors=regressors(pairs), features=tuple(pairs))
        facts = required("unic", facts)
        return cls(options, nn.Linear(facts.student_dim, facts.teacher_features))

    def forward(self, pair: Pair) -> Tensor:
        """`unic_loss` of the global batch."""
        if not self.features:
            return self._loss(self.projector, pair.student, pair.need("teacher_features"), pair)
        losses = [
            self._loss(of_pair(self.projectors, name), *one_size(*pair.sides(name)), pair)
            for name in self.features
        ]
        return torch.stack(losses).sum()

    def _loss(
        self, projector: Callable[[Tensor], Tensor], student: Tensor, teacher: Tensor, pair: Pair
    ) -> Tensor:
        with full_precision(student, teacher) as (student, teacher):
            return unic_loss(
                projector(student),
                teacher,
                cosine_weight=self.options.cosine_weight,
                smooth_weight=self.options.smooth_weight,
                group=pair.group,
            )
