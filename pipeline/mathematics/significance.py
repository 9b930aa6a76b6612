"""What separates: Student's paired test, and Holm's correction for several of them at once."""

import math
import statistics
from collections.abc import Sequence

# Points of top-1, half an interval: whoever cannot tell 10 points from none can tell nothing.
_BLIND = 10.0


# Differences of accuracies that are counts of images: what rounding leaves of equal ones.
_ROUNDING = 1e-9


def silence(low: float, high: float, pairs: int) -> str:
    """Why an interval of a difference, in points of top-1, says nothing; empty for any other.

    pairs: how many differences it is of. Equal ones are no certainty but few test images.
    """
    if (high - low) / 2 >= _BLIND:
        return f"{pairs} pairs: too few"
    return f"{pairs} equal pairs: too few images" if high - low <= _ROUNDING else ""


def p_value(gains: Sequence[float]) -> float:
    """Of Student's t, two-sided, that paired differences have mean 0.

    NaN for fewer than two, and for equal ones: of those t is infinite, while accuracies on few
    images agree by chance.
    """
    if len(gains) < 2:
        return math.nan
    # As scipy.stats.ttest_rel does, which takes half a second to import.
    from scipy.special import stdtr

    mean, std = statistics.fmean(gains), statistics.stdev(gains)
    if std <= _ROUNDING:
        return math.nan
    return float(2 * stdtr(len(gains) - 1, -abs(mean) * math.sqrt(len(gains)) / std))


def half_width(values: Sequence[float], confidence: float) -> float:
    """Half the width of Student's t interval around a mean; NaN for fewer than two values."""
    if len(values) < 2:
        return math.nan
    # As scipy.stats.t does, which takes half a second to import.
    from scipy.special import stdtrit

    quantile = float(stdtrit(len(values) - 1, (1 + confidence) / 2))
    return quantile * statistics.stdev(values) / math.sqrt(len(values))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (Scand. J. Statist. 6, 1979): adjusted values, in their order."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    for rank, place in enumerate(order):
        largest = max(largest, (len(order) - rank) * p_values[place])
        adjusted[place] = min(1.0, largest)
    return adjusted
