"""Plans: what they are to a store, and which of their views a row has in an epoch."""

import hashlib
import json

import numpy as np

from egapipe.pipeline.config.data import ViewsConfig
from egapipe.pipeline.results.durable import durable
from egapipe.pipeline.views.draws import GOLDEN, Hashes, Ints, mix64, u64

CLEAN = 0
METHOD = "egapipe views 1"
"""Changes when the same plan would give other views."""


def plan_hash(plan: ViewsConfig) -> str:
    """SHA-256 of the plan and the method: equal hashes mean equal views."""
    text = json.dumps(durable(plan), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"{METHOD}\n{text}".encode()).hexdigest()


def teacher_views(count: int, seed: int, epoch: int | Ints, hashes: Hashes) -> Ints:
    """The teacher's view of each row in an epoch, one or int64 [N], int64 [N].

    Every row walks through its augmented views 1..count in turn, from a start of its own; with no
    augmented view (`count` 0) it is the clean one.
    """
    if count == 0:
        return np.zeros(len(hashes), dtype=np.int64)
    start = mix64(hashes ^ mix64(u64(seed) + GOLDEN))
    steps = (start % np.uint64(count)).astype(np.int64) + np.asarray(epoch, dtype=np.int64)
    return 1 + steps % count


def settled(plan: ViewsConfig, aspect: str | None, rows: int | None = None) -> ViewsConfig:
    """A plan as it is replayed: its `aspect` is `keep`, or None where images are stretched; its
    partners are among a number of rows.

    aspect: what holds where the plan does not say. rows: that a data set has, or the partners of
    its store are among; without them a mixing plan stays as it is.
    """
    kept = (plan.aspect or aspect) == "keep"
    mix = plan.mix
    if mix is not None and rows is not None:
        mix = mix.model_copy(update={"among": min(mix.among or rows, rows)})
    return plan.model_copy(update={"aspect": "keep" if kept else None, "mix": mix})


def quarter_turns(plan: ViewsConfig, k: Ints) -> Ints:
    """By how many quarters, against the clock, views `k` of a plan are turned, int64 like them.

    View 1 is plain, 2, 3 and 4 are its turned ones, 5 is plain again, and so on.
    """
    return np.where(k == CLEAN, 0, (k - 1) % plan.turns)
