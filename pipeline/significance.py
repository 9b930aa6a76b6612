"""What separates: Student's paired test, and Holm's correction for several of them at once."""

import math
import statistics
from collections.abc import Sequence

# Points of top-1, half an interval: whoever cannot tell 10 points from none can tell nothing.
_BLIND = 10.0


def says_nothing(low: float, high: float) -> bool:
    """Whether an interval of a difference, in points of top-1, is too wide to say anything."""
    return (high - low) / 2 >= _BLIND


def p_value(gains: Sequence[float]) -> float:
    """Of Student's t, two-sided, that paired differences have mean 0; NaN for fewer than two."""
    if len(gains) < 2:
        return math.nan
    # As scipy.stats.ttest_rel does, which takes half a second to import.
    from scipy.special import stdtr

    mean, std = statistics.fmean(gains), statistics.stdev(gains)
    if std == 0:
        return float(mean == 0)
    return float(2 * stdtr(len(gains) - 1, -abs(mean) * math.sqrt(len(gains)) / std))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (Scand. J. Statist. 6, 1979): adjusted values, in their order."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    for rank, place in enumerate(order):
        largest = max(largest, (len(order) - rank) * p_values[place])
        adjusted[place] = min(1.0, largest)
    return adjusted
