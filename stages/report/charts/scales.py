"""Axes of numbers: when by their logarithms, and which of them are written."""

import math
from collections.abc import Sequence
from typing import Any

_DECADES = 7


def is_number(value: Any) -> bool:
    """Whether it can be drawn on an axis of numbers."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def wide(values: Sequence[float]) -> bool:
    """Whether numbers are better shown by their logarithms: they span more than a power of ten."""
    return bool(values) and min(values) > 0 and max(values) > 10 * min(values)


def round_values(values: Sequence[float]) -> list[float]:
    """Round numbers between the ends of some: of wide ones 1, 2, 5, or powers of ten where these
    are many; of others the ends alone."""
    low, high = min(values), max(values)
    if not wide(values):
        return [low, high]
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    decades = range(first, last + 1, -(-(last - first) // _DECADES))
    parts = (1, 2, 5) if last - first <= 2 else (1,)
    # By their digits: 10 ** -3 times 2 is not 0.002.
    tried = [float(f"{part}e{decade}") for decade in decades for part in parts]
    return [value for value in tried if low <= value <= high] or [low, high]
