"""The running sums of an epoch over all workers, which a checkpoint keeps."""

from collections.abc import Mapping

import torch

from egapipe.stages.distill.workers.world import World

_OF_ROWS = {"rows", "correct", "labelled"}
"""Sums over rows, of which each worker has its own; of all others each has the step's."""


def over_workers(
    before: Mapping[str, float], own: Mapping[str, float], world: World
) -> dict[str, float]:
    """The sums of an epoch so far, over all workers, and `workers`, how many these are.

    before: such sums, of the steps before a resume; empty without one. own: this worker's, since.
    All workers call it together. Another number of workers may have had the steps before: what each
    of them summed up is then weighted as if they had been as many as now.
    """
    names = sorted(own)
    values = torch.tensor([own[name] for name in names], dtype=torch.float64)
    totals = dict(zip(names, world.total(values.to(world.device)).tolist(), strict=True))
    # Checkpoints of before there was `workers` have the sums of one.
    scale = world.size / before.get("workers", 1.0)
    for name in names:
        share = before.get(name, 0.0)
        totals[name] += share if name in _OF_ROWS else share * scale
    return {**totals, "workers": float(world.size)}
