"""What the worker processes of test_workers run. Each imports this module anew."""

from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from egapipe.pipeline.config.objectives import EgaOptions
from egapipe.pipeline.errors import UsageError
from egapipe.stages.distill.objectives import Ega, Pair, ega_loss

WORLD = 4
DIM = 24
SPLITS = {
    "1 x 64": [64],
    "2 x 32": [32, 32],
    "4 x 16": [16, 16, 16, 16],
    "uneven": [5, 40, 0, 19],
    "one has all": [0, 64],
}
DTYPES = {"float32": torch.float32, "float64": torch.float64}


class NodeLayers(nn.Module):
    """A loss over trained layers of both sides, as in a training step."""

    def __init__(self, dtype):
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.student = nn.Linear(10, DIM, dtype=dtype)
        self.teacher = nn.Linear(12, DIM, dtype=dtype)
        for parameter in self.parameters():
            values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.data = values.to(dtype)

    def forward(self, rows, group):
        student, teacher = self.student(rows[:, :10]), self.teacher(rows[:, 10:])
        return ega_loss(student, teacher, group=group)


def batch(dtype):
    rows = torch.randn(64, 22, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return rows.to(dtype)


def gradients(model):
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def run(rank: int, folder: str) -> None:
    """Every split on a group of its size; each rank saves what it saw."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=WORLD,
        timeout=timedelta(seconds=120),
    )
    try:
        # Every process must take part in making every group.
        groups = {size: dist.new_group(list(range(size))) for size in (1, 2, 4)}
        seen = {}
        for name, counts in SPLITS.items():
            for type_name, dtype in DTYPES.items():
                if rank < len(counts):
                    mine = batch(dtype).split(counts)[rank]
                    seen[f"{name} {type_name}"] = step(mine, groups[len(counts)], dtype)
        seen["scopes"] = scopes(rank, groups[4])
        torch.save(seen, Path(folder) / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def step(rows, group, dtype):
    """Loss and gradients by DistributedDataParallel, and of the embeddings themselves."""
    model = DistributedDataParallel(NodeLayers(dtype), process_group=group)
    loss = model(rows, group)
    loss.backward()
    return {"loss": loss.detach(), "gradients": gradients(model.module)}


def scopes(rank, group):
    """The module's two scopes, and the form that several workers cannot have."""
    rows = batch(torch.float64).split(16)[rank]
    pair = Pair(student=rows[:, :10], teacher=rows[:, 10:20], group=group)
    seen = {scope: Ega(EgaOptions(scope=scope))(pair) for scope in ("global", "local")}
    seen["local direct"] = Ega(EgaOptions(scope="local", form="direct"))(pair)
    try:
        Ega(EgaOptions(form="direct"))(pair)
    except UsageError as error:
        seen["error"] = str(error)
    return seen
