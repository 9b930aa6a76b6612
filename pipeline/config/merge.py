"""Several plain trees laid over each other."""

from collections.abc import Iterable, Mapping
from functools import reduce
from typing import Any

from egapipe.pipeline.config.base import CHOICES

# A number right below this section is short for a section with this key, `ega: 1.0`, and so is
# this word.
SHORT_SECTION, SHORT_KEY, SHORT_WORD = ("distill", "objective"), "weight", "auto"


def merge(trees: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """One tree of several: sections are merged key by key, other values of the last tree count.

    `{}` empties a section, and a section of another `kind` or `backend` takes the place of the
    one before it.
    """
    return reduce(lambda below, above: _merged(below, above, ()), trees, {})


def _merged(
    below: Mapping[str, Any], above: Mapping[str, Any], path: tuple[str, ...]
) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        value = long_form(value, path)
        base = long_form(result.get(key), path)
        # Without keys of its own `{}` could only be meant to remove those of the base.
        onto = base if value and isinstance(base, dict) and not _chosen_anew(base, value) else {}
        result[key] = _merged(onto, value, (*path, key)) if isinstance(value, dict) else value
    return result


def _chosen_anew(below: Mapping[str, Any], above: Any) -> bool:
    return isinstance(above, dict) and any(
        key in below and key in above and below[key] != above[key] for key in CHOICES
    )


def replaced(below: Any, value: Any, path: tuple[str, ...]) -> Any:
    """What a key of the section at `path` is, once it is set to a value: the value.

    But a short one is one key of its section, `ega: 1.0` the weight, so the others stay, as they do
    where files are merged.
    """
    long, base = long_form(value, path), long_form(below, path)
    short = not isinstance(value, dict) and isinstance(long, dict)
    return {**base, **long} if short and isinstance(base, dict) else long


def long_form(value: Any, path: tuple[str, ...]) -> Any:
    """`ega: 1.0` as the section it is short for, so that a base and its user can be merged."""
    short = path == SHORT_SECTION and (isinstance(value, int | float) or value == SHORT_WORD)
    return {SHORT_KEY: value} if short and not isinstance(value, bool) else value
