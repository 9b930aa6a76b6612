"""What a recipe says anew where a whole configuration is changed, as variants and trials change it.

A configuration has a value for every key, whoever said it. A variant of another batch size or
optimizer would keep the learning rate that the recipe has for the one before; so what is as the
recipe says it follows the recipe, unless the variant says it itself.
"""

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from egapipe.pipeline.config.distill import DistillConfig
from egapipe.pipeline.config.load import override
from egapipe.pipeline.config.objectives import unsaid_ratio
from egapipe.pipeline.config.recipes import filled

_STAGE = "distill."
_CAUSES = ("recipe", "student", "optimizer", "batch_size", "epochs", "momentum", "head")
"""Keys by which a recipe decides others."""
_DECIDED = (
    *("lr", "weight_decay", "schedule", "warmup_epochs", "nesterov", "decay_on"),
    *("head.mode", "head.solver", "standardize"),
)
"""Keys that a recipe decides. The objective is what is compared: it stays, whatever the recipe."""


def followed(tree: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """What the recipe says anew of a whole tree that is changed, by dotted path like the changes.

    tree: of a configuration, as plain values. Empty where the changes do not fit it.
    """
    ratios = _ratios(tree, changes)
    if not any(_touches(path, _STAGE + cause) for path in changes for cause in _CAUSES):
        return ratios
    free = [
        key
        for key in _unsaid(json.dumps(tree["distill"]))
        if not any(_touches(path, _STAGE + key) for path in changes)
    ]
    before, after = tree["distill"], override(tree, changes)["distill"]
    said = _resolved(_without(after, free))
    if said is None:
        return ratios
    pairs = {key: (_at(before, key), _at(said, key)) for key in free}
    return ratios | {_STAGE + key: new for key, (old, new) in pairs.items() if old != new}


def _ratios(tree: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The ratios that nobody said, of objectives whose weight becomes automatic or a number."""
    found = {}
    for path, value in changes.items():
        objective, _, key = path.rpartition(".")
        where, _, name = objective.rpartition(".")
        if (where, key) != (_STAGE + "objective", "weight"):
            continue
        was = tree["distill"]["objective"].get(name) or {}
        old, new = (unsaid_ratio(weight) for weight in (was.get("weight"), value))
        ratio = f"{objective}.ratio"
        if was.get("ratio") == old != new and not any(_touches(path, ratio) for path in changes):
            found[ratio] = new
    return found


def _touches(path: str, key: str) -> bool:
    """Whether a change at a path changes a key: itself, what it is in, or what is in it."""
    return f"{path}.".startswith(f"{key}.") or f"{key}.".startswith(f"{path}.")


@lru_cache
def _unsaid(section: str) -> tuple[str, ...]:
    """Of a whole section as JSON, the keys that have what the recipe says."""
    distill = json.loads(section)
    return tuple(_find_unsaid(distill))


def _find_unsaid(distill: dict[str, Any]) -> Iterator[str]:
    for key in _DECIDED:
        said = _resolved(_without(distill, [key]))
        if said is not None and _at(said, key) == _at(distill, key):
            yield key


def _resolved(distill: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        return DistillConfig.model_validate(filled(distill)).model_dump(mode="json")
    except ValidationError:
        return None


def _without(distill: Mapping[str, Any], keys: list[str]) -> dict[str, Any]:
    """A copy without some keys."""
    kept = {key: dict(v) if isinstance(v, Mapping) else v for key, v in distill.items()}
    for key in keys:
        section, _, inner = key.partition(".")
        below = kept.get(section) if inner else kept
        if isinstance(below, dict):
            below.pop(inner or section, None)
    return kept


def _at(distill: Mapping[str, Any], key: str) -> Any:
    section, _, inner = key.partition(".")
    value = distill.get(section)
    return value.get(inner) if inner and isinstance(value, Mapping) else value
