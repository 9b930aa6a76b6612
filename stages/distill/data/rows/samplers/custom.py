"""A sampler of the user's own, named `module:callable`."""

from functools import partial

import numpy as np

from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.machine.imports import call
from egapipe.stages.distill.data.rows.order import Ints, Order
from egapipe.stages.distill.data.rows.samplers.base import Pool


def custom_order(name: str, pool: Pool) -> Order:
    """What `callable(pool)` gives, checked at every pass.

    It must be a function of rows and pass alone: workers, and a training that is taken up again,
    draw for themselves. Raises UsageError in one line where it cannot be imported or fails.
    """
    order = call("sampler", name, (pool,), {})
    if not callable(order):
        raise UsageError(
            f"sampler {name!r} gives {type(order).__name__}: it must give a function of rows and "
            "the number of the pass"
        )
    return partial(_checked, name, order)


def _checked(name: str, order: Order, rows: Ints, number: int) -> Ints:
    """Raises UsageError unless as many rows come back, and no other ones."""
    found = np.asarray(order(rows, number))
    if found.shape != rows.shape or found.dtype.kind not in "iu" or not np.isin(found, rows).all():
        raise UsageError(
            f"sampler {name!r} gives {found.dtype} {list(found.shape)} in pass {number}: it must "
            f"give as many of the {len(rows):,} row numbers that it was given"
        )
    return found.astype(np.int64)
