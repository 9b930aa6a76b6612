"""Samplers: which rows meet in a batch. One file each, all of them in SAMPLERS."""

from collections.abc import Callable

from egapipe.stages.distill.data.order import Order
from egapipe.stages.distill.data.samplers.base import Pool
from egapipe.stages.distill.data.samplers.class_balanced import class_balanced_order
from egapipe.stages.distill.data.samplers.neighbours import neighbours_order
from egapipe.stages.distill.data.samplers.random import random_order

SAMPLERS: dict[str, Callable[[Pool], Order]] = {
    "random": random_order,
    "class-balanced": class_balanced_order,
    "neighbours": neighbours_order,
}
"""`distill.sampler` to what gives the order of each pass."""

__all__ = ["SAMPLERS", "Pool"]
