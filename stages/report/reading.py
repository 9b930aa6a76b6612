"""What a paired difference says: better, worse, or nothing."""

import math
from typing import Literal

from egapipe.pipeline.mathematics.significance import silence
from egapipe.pipeline.results.standing import Standing

BETTER = "better"


def reading(row: Standing, mode: Literal["max", "min"] = "max") -> str:
    """In words, what the difference of a setting to its baseline says.

    mode: whether more of the metric is better. `separates` holds for all of a group together.
    """
    if not row.pairs:
        return ""
    if not math.isfinite(row.low):
        return "one pair says nothing of chance" if row.pairs == 1 else ""
    if row.separates:
        return BETTER if (row.gain > 0) == (mode == "max") else "worse"
    if silent := silence(row.low, row.high, row.pairs):
        return f"says nothing, {silent}"
    if row.low > 0 or row.high < 0:
        return "not separated among all variants"
    return "not separated"
