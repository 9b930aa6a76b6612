"""EGA's automatic form against a plain direct implementation, forward and backward."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from egapipe.stages.bench.measure import paired
from egapipe.stages.distill.objectives import ega_loss

DIM = 256
REPEATS = {64: 200, 1024: 30, 4096: 7, 8192: 3}
NODE, EDGE = 0.8, 0.24


def plain_ega(student: Tensor, teacher: Tensor) -> Tensor:
    """The definition, as one would write it first: one B+B by B+B correlation matrix."""
    b = len(student)
    stacked = torch.cat([teacher, student])
    centred = stacked - stacked.mean(dim=1, keepdim=True)
    unit = centred / centred.norm(dim=1, keepdim=True)
    graph = unit @ unit.T
    edge = graph[:b, :b] - graph[b:, b:]
    node = graph[:b, b:] - torch.eye(b)
    loss: Tensor = NODE * node.norm() + EDGE * edge.norm()
    return loss


def _step(loss: Callable[[Tensor, Tensor], Tensor], pair: tuple[Tensor, Tensor]) -> None:
    student, teacher = pair
    student.grad = None
    loss(student, teacher).backward()


def _ours(student: Tensor, teacher: Tensor) -> Tensor:
    return ega_loss(student, teacher, node_weight=NODE, edge_weight=EDGE)


def report() -> list[str]:
    """The measurement as lines of text."""
    lines = [
        f"EGA forward + backward, float32, D = {DIM}, {torch.get_num_threads()} threads",
        f"  {'B':>6}{'egapipe ms':>12}{'plain ms':>12}{'ratio':>8}",
    ]
    for batch, repeats in REPEATS.items():
        generator = torch.Generator().manual_seed(batch)
        student = torch.randn(batch, DIM, generator=generator, requires_grad=True)
        pair = student, torch.randn(batch, DIM, generator=generator)
        found = paired(
            partial(_step, _ours, pair),
            partial(_step, plain_ega, pair),
            repeats=repeats,
        )
        ours, plain = found.ours * 1e3, found.reference * 1e3
        lines.append(f"  {batch:>6}{ours:>12.2f}{plain:>12.2f}{found.ratio:>8.3f}")
    return lines
