"""Distillation objectives: one file each, one explicit registry, and their weighted sum."""

from __future__ import annotations

from typing import TYPE_CHECKING

from egapipe.stages.distill.objectives.base import Objective, Pair, WeightedSum
from egapipe.stages.distill.objectives.ega import Ega, ega_loss
from egapipe.stages.distill.objectives.pearson import correlation

if TYPE_CHECKING:
    from egapipe.pipeline.config.distill import ObjectiveConfig

__all__ = [
    "REGISTRY",
    "Ega",
    "Objective",
    "Pair",
    "WeightedSum",
    "build_objective",
    "correlation",
    "ega_loss",
]

REGISTRY: dict[str, type[Objective]] = {
    "ega": Ega,
}
"""Field of the configuration's objective section -> class, which is called with that field."""


def build_objective(config: ObjectiveConfig) -> WeightedSum:
    """The weighted sum of the objectives that the configuration sets; of none if it sets none.

    config: one optional field an objective, with its `weight` and its own options.
    """
    chosen = {name: getattr(config, name, None) for name in REGISTRY}
    options = {name: option for name, option in chosen.items() if option is not None}
    return WeightedSum(
        {name: REGISTRY[name](option) for name, option in options.items()},
        {name: option.weight for name, option in options.items()},
    )
