"""Objectives that compare the places of pairs of features, or their frames."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor

from egapipe.stages.distill.objectives.base import Facts, Objective, Pair
from egapipe.stages.distill.objectives.shared.features import pairs_of, require_kind

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class Placewise(Objective):
    """One loss on pairs of features, maps or tokens, added up. `name` is the objective's in the
    configuration."""

    needs: frozenset[str] = frozenset()
    name: ClassVar[str]

    def __init__(self, options: Any, features: tuple[str, ...]) -> None:
        """features: the pairs that are compared."""
        super().__init__()
        self.options = options
        self.features = features

    @classmethod
    def build(cls, options: Any, facts: Facts | None) -> Self:
        """Raises UsageError where there are no such features, or they have no places."""
        pairs = pairs_of(cls.name, options, facts)
        require_kind(cls.name, pairs, 2, 3)
        return cls(options, tuple(pairs))

    @abstractmethod
    def loss(self, student: Tensor, teacher: Tensor, group: ProcessGroup | None) -> Tensor:
        """The loss of one pair, a scalar over the batch of all workers."""

    def forward(self, pair: Pair) -> Tensor:
        """The sum over the pairs, of the global batch."""
        sides = [pair.sides(name) for name in self.features]
        return torch.stack([self.loss(s, t, pair.group) for s, t in sides]).sum()
