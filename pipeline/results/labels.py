"""Names of settings and of their values, as short as they can be told apart."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def short_name(path: str) -> str:
    """A setting's path without what all of them share."""
    return path.removeprefix("distill.").removeprefix("objective.")


def short_value(value: Any) -> str:
    """A value in a few characters: four digits of a number, `ega=0.1+kd` for a section.

    Sections that differ have other texts, as long as their numbers differ in four digits.
    """
    if isinstance(value, float):
        return f"{value:.4g}"
    if not isinstance(value, dict):
        return str(value)
    parts = (f"{key}{_short_part(part)}" for key, part in value.items())
    return "+".join(parts) or "none"


def _short_part(value: Any) -> str:
    """What follows a key: nothing where it is all defaults."""
    if value == {}:
        return ""
    return f"({short_value(value)})" if isinstance(value, dict) else f"={short_value(value)}"


def value_names(values: Iterable[Any]) -> list[str]:
    """A text for each value: the short one, or all of it where those of unlike values agree."""
    listed = list(values)
    kinds: dict[str, set[str]] = {}
    for value in listed:
        kinds.setdefault(short_value(value), set()).add(json.dumps(value, sort_keys=True))
    return [
        short if len(kinds[short := short_value(value)]) == 1 else json.dumps(value, sort_keys=True)
        for value in listed
    ]


def setting_names(path: str, trials: Sequence[Mapping[str, Any]]) -> list[str]:
    """The texts of one setting of several trials, by `value_names`; empty where one has it not."""
    having = [changes[path] for changes in trials if path in changes]
    names = iter(value_names(having))
    return [next(names) if path in changes else "" for changes in trials]


def setting_label(changes: Mapping[str, Any]) -> str:
    """`lr 0.05, ega.weight 0.31`, in words; `as configured` where nothing is changed."""
    parts = (f"{short_name(path)} {short_value(value)}" for path, value in changes.items())
    return ", ".join(parts) or "as configured"
