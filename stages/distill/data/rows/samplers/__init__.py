"""Samplers: which rows meet in a batch. One file each, all of them in SAMPLERS."""

from collections.abc import Callable
from functools import partial

from egapipe.stages.distill.data.rows.order import Order
from egapipe.stages.distill.data.rows.samplers.base import Pool
from egapipe.stages.distill.data.rows.samplers.class_balanced import class_balanced_order
from egapipe.stages.distill.data.rows.samplers.custom import custom_order
from egapipe.stages.distill.data.rows.samplers.neighbours import neighbours_order
from egapipe.stages.distill.data.rows.samplers.pairs import pairs_order
from egapipe.stages.distill.data.rows.samplers.random import random_order

SAMPLERS: dict[str, Callable[[Pool], Order]] = {
    "random": random_order,
    "class-balanced": class_balanced_order,
    "neighbours": neighbours_order,
    "pairs": pairs_order,
}
"""`distill.sampler` to what gives the order of each pass."""
ONCE = ("random", "neighbours", "pairs")
"""Those that give every row once a pass."""

__all__ = ["ONCE", "SAMPLERS", "Pool", "find_sampler"]


def find_sampler(name: str) -> Callable[[Pool], Order]:
    """A registered sampler, or what `module:callable` names."""
    return SAMPLERS[name] if name in SAMPLERS else partial(custom_order, name)
