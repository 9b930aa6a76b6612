"""A planned cell, and the configuration that it trains with."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from egapipe.pipeline.config import Config, override
from egapipe.pipeline.config.following import followed
from egapipe.pipeline.config.load import check
from egapipe.pipeline.results.runs import RunFolder

Changes = dict[str, Any]
SEED = "distill.seed"
SAME_FOR_ALL = ("workers", "device", "threads", "max_failures")
"""Settings of `distill` that are planned for all cells that run together: where a cell trains does
not change what it learns."""


@dataclass(frozen=True)
class Planned:
    """One training of an experiment.

    number: from 0, in the order of the plan. changes: of the experiment's configuration, by dotted
    path, the seed included where it is changed.
    """

    number: int
    changes: Changes
    config: Config
    run: RunFolder


def changed(config: Config, changes: Mapping[str, Any], what: str) -> Config:
    """The configuration with changes by dotted path, and with what its recipe says of them.

    what: they are of, for the message. Raises UsageError if the configuration refuses them.
    """
    tree, ordered = config.model_dump(mode="json"), _ordered(changes)
    return check(override(tree, {**ordered, **followed(tree, ordered)}), what)


def consequences(config: Config, changes: Mapping[str, Any]) -> Changes:
    """What the recipe of a configuration says anew where it is changed so, by dotted path."""
    return followed(config.model_dump(mode="json"), _ordered(changes))


def _ordered(changes: Mapping[str, Any]) -> Changes:
    """A section before what lies below it."""
    return dict(sorted(changes.items(), key=lambda item: item[0].count(".")))


def named_changes(changes: Mapping[str, Any]) -> str:
    """Changes in words, for a message."""
    return ", ".join(f"{path} = {json.dumps(value)}" for path, value in changes.items())


def without_seed(changes: Mapping[str, Any]) -> Changes:
    """What a cell has in common with those of other seeds."""
    return {path: value for path, value in changes.items() if path != SEED}
