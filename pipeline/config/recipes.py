"""What a training's settings are where nobody sets them.

`default` was chosen on images that are not reported, see docs/recipes.md; `paper` is the protocol
of arXiv 2211.13264, and the defaults of the sections themselves.
"""

import math
from collections.abc import Mapping
from typing import Any

from egapipe.pipeline.results.durable import FORMAT_1

RATE = {"default": 0.1, "paper": 0.05}
"""Of batches of `BATCH` rows."""
BATCH = 64
SLOW = ("shufflenet_v1", "shufflenet_v2", "mobilenet_v2_half")
"""Students of depthwise convolutions, which the CRD benchmark trains at a fifth of the rate."""
ADAPTIVE = {"lr": 0.002, "weight_decay": 0.05}
"""Of AdamW and Muon, whose steps do not grow with the gradient; the rate of batches of `BATCH`
rows."""
WARMUP = 5.0
"""Epochs of warm-up at most; of short trainings a tenth."""

MOST = 10**9
"""What is above it is no number of rows or epochs."""
Tree = dict[str, Any]


def filled(distill: Mapping[str, Any]) -> Tree:
    """A plain section `distill` with what its recipe says of the keys that it lacks.

    One that has every key of before there were recipes, and none itself, was resolved then: it is
    the paper's.
    """
    resolved = set(FORMAT_1["DistillConfig"].split()) <= distill.keys()
    recipe = distill.get("recipe", "paper" if resolved else "default")
    if not isinstance(recipe, str) or recipe not in RATE:
        return dict(distill)
    tree = {"recipe": recipe, **distill}
    if not resolved:
        tree.setdefault("lr", rate(recipe, tree))
    if tree.get("optimizer", "sgd") != "sgd":
        tree.setdefault("weight_decay", ADAPTIVE["weight_decay"])
    return tree if recipe == "paper" else _today(tree)


def _today(tree: Tree) -> Tree:
    head = tree.get("head", {})
    if isinstance(head, Mapping):
        tree["head"] = {"mode": "sequential", "solver": "lbfgs", **head}
    if isinstance(head, Mapping) and tree["head"]["mode"] == "sequential":
        tree.setdefault("standardize", "zscore")
    tree.setdefault("objective", {"ega": {"weight": "auto"}, "kd": {"weight": "auto"}})
    tree.setdefault("schedule", "cosine")
    tree.setdefault("warmup_epochs", _warmup(tree.get("epochs", 240)))
    tree.setdefault("nesterov", tree.get("momentum", 0.9) != 0)
    tree.setdefault("decay_on", "weights")
    return tree


def rate(recipe: str, tree: Mapping[str, Any]) -> float:
    """The learning rate of a recipe, of a plain section that does not say it.

    That of the paper is of the student alone. The default grows with the root of the batch size
    (Malladi et al. 2022, arXiv 2205.10287): the noise of a step shrinks by it.
    """
    student = tree.get("student", {})
    name = student.get("name") if isinstance(student, Mapping) else None
    adaptive = tree.get("optimizer", "sgd") != "sgd"
    found = ADAPTIVE["lr"] if adaptive else RATE[recipe] * (0.2 if name in SLOW else 1.0)
    rows = tree.get("batch_size", BATCH)
    if recipe == "paper" or not isinstance(rows, int) or not 0 < rows < MOST:
        return round(found, 6)
    return float(f"{found * math.sqrt(rows / BATCH):.4g}")


def _warmup(epochs: Any) -> float:
    sound = isinstance(epochs, int | float) and 0 < epochs < MOST
    return min(WARMUP, epochs / 10) if sound else 0.0
