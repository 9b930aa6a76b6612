"""A training that ends after some steps, also as one of several processes that train together."""

from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from egapipe.pipeline.config import load_config
from egapipe.pipeline.runs import RunFolder
from egapipe.stages.distill.checkpoint import Position
from egapipe.stages.distill.loop import fit
from egapipe.stages.distill.setup import prepare
from egapipe.stages.distill.world import World


class Interruption(Exception):  # noqa: N818
    """The end of a process, as the loop sees it."""


def train(config_file: str, run: str, world: World, stop: int | None) -> bool:
    """Train from where the run's last checkpoint stands, at most `stop` steps: was it the end?"""
    job, steps = prepare(load_config(config_file), world), []

    def stepped(at: Position) -> None:
        steps.append(at.step)
        if len(steps) == stop:
            raise Interruption

    try:
        fit(job, RunFolder(Path(run)), lambda epoch, metrics: None, stepped)
    except Interruption:
        return False
    return True


def work(rank: int, size: int, config_file: str, run: str, stop: int | None) -> None:
    """One of `size` workers that train together through gloo."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{run}.rendezvous",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=240),
    )
    try:
        train(config_file, run, World.current(torch.device("cpu")), stop)
    finally:
        dist.destroy_process_group()
