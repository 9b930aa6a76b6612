"""How many rows a shard has: a function of what is stored of a row."""

import math
from collections.abc import Mapping, Sequence

from egapipe.pipeline.store.format.dtypes import NUMPY, DtypeName

USUAL_ROWS = 4096
"""Rows of a shard whose embeddings are small."""
SHARD_BYTES = 1 << 28
"""Most that a shard takes in the store, where the configuration does not say how many rows."""


def fitting_rows(outputs: Mapping[str, Sequence[int]], views: int, dtype: DtypeName) -> int:
    """Rows of a shard that takes about SHARD_BYTES, and at most USUAL_ROWS: a power of two.

    outputs: name -> shape of one embedding. A function of the layout alone, so that the same
    configuration gives the same store on every machine.
    """
    numbers = sum(math.prod(shape) for shape in outputs.values())
    row = max(1, views * numbers * NUMPY[dtype].itemsize)
    fitting = max(1, SHARD_BYTES // row)
    return min(USUAL_ROWS, 1 << (fitting.bit_length() - 1))
