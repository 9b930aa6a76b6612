"""Rows at random: every row once a pass."""

from egapipe.stages.distill.data.rows.order import Order, at_random
from egapipe.stages.distill.data.rows.samplers.base import Pool


def random_order(pool: Pool) -> Order:
    """Every row once, in an order that is a function of (seed, number)."""
    return at_random(pool.seed)
