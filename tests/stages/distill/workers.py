"""A training that ends after some steps, also as one of several processes that train together."""

import multiprocessing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import save_file
from torch import nn

from egapipe.pipeline.config import load_config
from egapipe.pipeline.results.runs import RunFolder
from egapipe.stages.distill.setup import prepare
from egapipe.stages.distill.training.checkpoint import Position
from egapipe.stages.distill.training.loop import fit
from egapipe.stages.distill.workers.world import World

RESULTS = "results.json"
Session = tuple[int, str, str, int | None]
"""Workers, configuration, run folder, and the steps after which they stop."""


def matrices() -> nn.Module:
    """A student without batch normalisation."""
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 32), nn.Tanh(), nn.Linear(32, 32))


class Interruption(Exception):  # noqa: N818
    """The end of a process, as the loop sees it."""


def train(config_file: str, run: str, world: World, stop: int | None) -> bool:
    """Train from where the run's last checkpoint stands, at most `stop` steps: was it the end?"""
    job, steps = prepare(load_config(config_file), world), []

    def stepped(at: Position) -> None:
        steps.append(at.step)
        if len(steps) == stop:
            raise Interruption

    folder = RunFolder(Path(run))
    try:
        results = fit(job, folder, lambda epoch, metrics: None, stepped)
    except Interruption:
        return False
    if world.is_main:
        folder.write_json(RESULTS, results)
    if world.group is not None:
        state = {k: v.contiguous() for k, v in job.model.student.state_dict().items()}
        save_file(state, folder.path / f"rank{world.rank}.safetensors")
    return True


@contextmanager
def together(rank: int, size: int, folder: Path, name: str = "rendezvous") -> Iterator[None]:
    """For the length of a block this process is one of `size`, joined by gloo."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder / name}",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=240),
    )
    try:
        yield
    finally:
        dist.destroy_process_group()


def work(rank: int, size: int, config_file: str, run: str, stop: int | None) -> None:
    """One of `size` workers that train together through gloo."""
    with together(rank, size, Path(run).parent, f"{Path(run).name}.rendezvous"):
        train(config_file, run, World.current(torch.device("cpu")), stop)


def train_together(size: int, file: Path, run: Path, stop: int | None) -> None:
    """Train with so many gloo workers, at most `stop` steps."""
    run.with_name(f"{run.name}.rendezvous").unlink(missing_ok=True)
    # What takes the longest of a start is imported once.
    multiprocessing.set_forkserver_preload(["torch._dynamo", __name__])
    args = (size, str(file), str(run), stop)
    mp.start_processes(work, args=args, nprocs=size, start_method="forkserver")  # type: ignore[attr-defined]


def take_turns(rank: int, sessions: Sequence[Session]) -> None:
    """Trainings one after another, each by the first so many of the workers."""
    counts = sorted({count for count, *_ in sessions})
    # Every process must take part in making every group.
    groups = {count: dist.new_group(list(range(count))) for count in counts}
    for count, config_file, run, stop in sessions:
        if rank < count:
            world = World(rank, count, torch.device("cpu"), groups[count])
            train(config_file, run, world, stop)
        dist.barrier()
