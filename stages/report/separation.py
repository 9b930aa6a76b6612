"""What a paired difference says: better, worse, or nothing."""

from collections.abc import Mapping
from typing import Any

from egapipe.pipeline.mathematics.significance import silence

BETTER = "better"


def reading(row: Mapping[str, Any]) -> str:
    """In words, what the difference of a row of comparison.json to its baseline says.

    `separates` of the row holds for all variants of its student together.
    """
    low, high, pairs = row.get("low"), row.get("high"), row.get("pairs") or 0
    if low is None or high is None:
        return "one pair says nothing of chance" if pairs == 1 else ""
    if row["separates"]:
        return BETTER if row["gain"] > 0 else "worse"
    if silent := silence(low, high, pairs):
        return f"says nothing, {silent}"
    if low > 0 or high < 0:
        return "not separated among all variants"
    return "not separated"
