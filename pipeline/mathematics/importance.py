"""Which setting of a search mattered: how much worse a model of its results is without it."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

FEWEST = 6
"""Trials below which nothing is said."""
_TREES, _SHUFFLES = 200, 20


def importance(trials: Sequence[Mapping[str, Any]], values: Sequence[float]) -> dict[str, float]:
    """Setting -> its share of what the settings explain, the largest first; they add up to 1.

    A random forest (Breiman 2001) of the values is asked again with one setting's values shuffled
    among the trials: what its squared error grows by is that setting's. trials: setting -> value of
    each, which it may lack; values: what they reached. Empty for fewer than FEWEST trials, for
    settings that do not vary, or where they explain nothing: where the trees that were grown
    without a trial foretell it no better than the mean of all does (out-of-bag R² of 0 or less).
    """
    names = [name for name in dict.fromkeys(n for t in trials for n in t) if _varies(name, trials)]
    target = np.asarray(values, dtype=np.float64)
    if len(trials) < FEWEST or not names or not target.std() > 0:
        return {}
    from sklearn.ensemble import RandomForestRegressor

    columns = {name: _columns([trial.get(name) for trial in trials]) for name in names}
    forest = RandomForestRegressor(
        _TREES, random_state=0, n_jobs=1, min_samples_leaf=2, oob_score=True
    )
    forest.fit(np.hstack(list(columns.values())), target)
    # By heart it knows noise too.
    if forest.oob_score_ <= 0:
        return {}

    def error(features: Mapping[str, Doubles]) -> float:
        predicted = forest.predict(np.hstack(list(features.values())))
        return float(((predicted - target) ** 2).mean())

    random, least = np.random.default_rng(0), error(columns)
    grown = {}
    for name, own in columns.items():
        shuffled = (own[random.permutation(len(own))] for _ in range(_SHUFFLES))
        grown[name] = float(np.mean([error({**columns, name: one}) - least for one in shuffled]))
    total = sum(max(0.0, value) for value in grown.values())
    if total <= 0:
        return {}
    shares = {name: max(0.0, value) / total for name, value in grown.items()}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _varies(name: str, trials: Sequence[Mapping[str, Any]]) -> bool:
    return len({json.dumps(trial.get(name), sort_keys=True) for trial in trials}) > 1


def _columns(values: Sequence[Any]) -> Doubles:
    """float64 [n, k]: numbers by their size, others a column each; one more for those without."""
    known = [value for value in values if value is not None]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in known):
        middle = float(np.median(known))
        numbers = [float(middle if value is None else value) for value in values]
        wide = min(numbers) > 0 and max(numbers) > 10 * min(numbers)
        first = [math.log(number) if wide else number for number in numbers]
        absent = [float(value is None) for value in values]
        return np.array([first, absent]).T
    texts = [json.dumps(value, sort_keys=True) for value in values]
    kinds = list(dict.fromkeys(texts))
    return np.array([[float(text == kind) for kind in kinds] for text in texts])
