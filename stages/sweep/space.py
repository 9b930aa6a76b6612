"""The values of one setting: drawn, listed, or its ends."""

import math
from typing import Any

import numpy as np

from egapipe.pipeline.config.sweep import Dimension
from egapipe.pipeline.errors import UsageError


def draw(dimension: Dimension, rng: np.random.Generator) -> Any:
    """One value, of the type that the configuration wants."""
    if dimension.uniform is not None:
        return float(rng.uniform(*dimension.uniform))
    if dimension.loguniform is not None:
        low, high = dimension.loguniform
        value = math.exp(rng.uniform(math.log(low), math.log(high)))
        return min(max(value, low), high)
    if dimension.randint is not None:
        low, high = dimension.randint
        return int(rng.integers(low, high, endpoint=True))
    values = dimension.choice or dimension.grid or ()
    return values[rng.integers(len(values))]


def every(path: str, dimension: Dimension) -> list[Any]:
    """All values, for a grid. Raises UsageError where there is no end of them."""
    if dimension.randint is not None:
        low, high = dimension.randint
        return list(range(low, high + 1))
    values = dimension.choice or dimension.grid
    if values is None:
        raise UsageError(
            f"sweep.space.{path}: a {dimension.kind} has no end of values, sweep.search grid wants "
            "all: list them, {grid: [...]}, or set sweep.search to random"
        )
    return list(values)


def ends(dimension: Dimension) -> list[Any]:
    """The values that decide whether all of them are valid: both ends, or each that is listed."""
    between = dimension.uniform or dimension.loguniform or dimension.randint
    return list(between or dimension.choice or dimension.grid or ())
