"""What workers send each other is in one order, whichever seed a process hashes texts with."""

import json
import os
import subprocess
import sys
from typing import Any

from egapipe.pipeline.config import Config
from tests.stages.distill.conftest import MakeConfig

# What is sent in turn, and what the optimisers keep by number.
SCRIPT = """
import json, sys
import torch
from egapipe.pipeline.config import Config
from egapipe.stages.distill.setup import prepare
from egapipe.stages.distill.training.optimizers import make_optimizers
from egapipe.stages.distill.workers.world import World

config = Config.model_validate(json.load(sys.stdin))
model = prepare(config, World.alone(torch.device("cpu"))).model
names = {id(p): name for name, p in model.named_parameters()}
groups = [g for o in make_optimizers(model, config.distill) for g in o.param_groups]
print(json.dumps({
    "replicated": list(model.replicated),
    "buffers": [name for name, _ in model.named_buffers()],
    "parameters": list(names.values()),
    "optimised": [names[id(p)] for group in groups for p in group["params"]],
}))
"""


def orders(config: Config, seeds: range) -> list[dict[str, Any]]:
    """What processes with these seeds of hashing have, all at once."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            text=True,
        )
        for seed in seeds
    ]
    given = json.dumps(config.model_dump(mode="json"))
    return [json.loads(process.communicate(given)[0]) for process in processes]


def test_the_order_is_the_same_with_any_seed_of_hashing(quick: MakeConfig) -> None:
    """Each worker of Ray has a seed of its own. Sets of texts then have an order of their own, and
    a worker would take one buffer for another."""
    config = quick(
        "distill.recipe=default",
        "distill.objective={ega: auto, kd: auto, crd: 1, rrd: auto, sp: auto}",
        "distill.optimizer=muon",
    )
    first, *others = orders(config, range(3))
    assert {"objective.balance.norms", "objective.balance.steps"} < set(first["replicated"])
    assert all(other == first for other in others)
