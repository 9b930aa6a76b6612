"""Which setting of a search mattered."""

from typing import Any

import numpy as np

from egapipe.pipeline.mathematics.importance import FEWEST, importance


def search(count: int) -> tuple[list[dict[str, Any]], list[float]]:
    """Trials whose value is a rate's doing, a little the kind's, and never the seed's."""
    random = np.random.default_rng(0)
    trials, values = [], []
    for number in range(count):
        rate = float(10 ** random.uniform(-3, 0))
        kind = "ab"[number % 2]
        trials.append({"rate": rate, "kind": kind, "seed": number % 3, "same": 1})
        values.append(-10 * abs(np.log10(rate) + 1.5) + (kind == "a"))
    return trials, values


def test_what_decides_is_the_first_and_shares_add_up() -> None:
    found = importance(*search(40))
    assert next(iter(found)) == "rate"
    assert found["rate"] > 0.8
    assert found["seed"] < 0.05
    assert "same" not in found
    assert abs(sum(found.values()) - 1) < 1e-9
    assert found == importance(*search(40))


def test_settings_that_some_trials_lack_and_sections_are_settings() -> None:
    trials: list[dict[str, Any]] = [
        {"objective": {"kd": 1.0}, "temperature": float(t)} if t else {"objective": {}}
        for t in (0, 1, 2, 0, 3, 4, 0, 5)
    ]
    values = [50.0 if "temperature" in trial else 10.0 for trial in trials]
    found = importance(trials, values)
    assert set(found) == {"objective", "temperature"}


def test_too_little_says_nothing() -> None:
    trials, values = search(FEWEST - 1)
    assert importance(trials, values) == {}
    trials, values = search(12)
    assert importance(trials, [1.0] * 12) == {}
    assert importance([{"same": 1}] * 12, values) == {}


def test_where_settings_explain_nothing_there_are_no_shares() -> None:
    """Values of which most of the difference is noise, in one search of ten at most by chance."""
    trials, _ = search(40)
    random = np.random.default_rng(0)
    searches = [random.normal(size=len(trials)) for _ in range(20)]
    assert sum(importance(trials, list(values)) != {} for values in searches) <= 2
