"""What a paired difference says: better, worse, or nothing."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

BETTER = "better"
# Points of top-1, half an interval: whoever cannot tell 10 points from none can tell nothing.
_BLIND = 10.0


def readings(rows: Sequence[Mapping[str, Any]], confidence: float) -> list[str]:
    """In words, what the difference of each row to the baseline says at a confidence, 0 to 1.

    rows: of comparison.json, without baselines. Of several differences some are large by chance:
    `better` and `worse` hold for all of them together, by Holm's method (Scandinavian Journal of
    Statistics 6, 1979) on the two-sided paired t-tests.
    """
    adjusted = holm([_p_value(row) for row in rows])
    return [_reading(row, p, confidence, len(rows)) for row, p in zip(rows, adjusted, strict=True)]


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the same order: below a level together where these are."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [1.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, (len(order) - rank) * p_values[place])
        adjusted[place] = min(1.0, largest)
    return adjusted


def _p_value(row: Mapping[str, Any]) -> float:
    """Of Student's paired t-test; 1 where there are not two pairs."""
    gain, std, pairs = row.get("gain"), row.get("gain_std"), row.get("pairs") or 0
    if gain is None or std is None or pairs < 2 or not math.isfinite(gain + std):
        return 1.0
    if std == 0:
        return float(gain == 0)
    from scipy.stats import t

    return float(2 * t.sf(abs(gain) / (std / math.sqrt(pairs)), pairs - 1))


def _reading(row: Mapping[str, Any], p: float, confidence: float, many: int) -> str:
    low, high, pairs = row.get("low"), row.get("high"), row.get("pairs") or 0
    if low is None or high is None:
        return "one pair says nothing of chance" if pairs == 1 else ""
    if p < 1 - confidence:
        return BETTER if row["gain"] > 0 else "worse"
    if (high - low) / 2 >= _BLIND:
        return f"says nothing: {pairs} pairs are too few"
    if low > 0 or high < 0:
        return f"not separated among {many} differences"
    return "not separated"
