"""Nodes of the steps before, for graphs of more rows than a step has."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from egapipe.stages.distill.objectives import Pair
from egapipe.stages.distill.objectives.shared.gather import global_rows
from egapipe.stages.distill.workers.world import World

REMEMBERED = ("student", "teacher", "student_logits", "teacher_logits", "labels", "rows")


class GraphMemory(nn.Module):
    """The last M rows before a step's own, as constants (cross-batch memory, arXiv 1912.06798).

    Their nodes are as old as the steps they are from: with a learning rate that lets the student
    drift little in M rows they differ little from what it would make of them now. All workers hold
    the same memory, in buffers that checkpoints keep, and give each its share of it to the graph.
    """

    seen: Tensor

    def __init__(self, rows: int, dim: int, classes: int) -> None:
        """rows: M. dim: D of the nodes. classes: C of the logits."""
        super().__init__()
        for name, width in zip(REMEMBERED, (dim, dim, classes, classes), strict=False):
            self.register_buffer(name, torch.zeros(rows, width))
        for name in REMEMBERED[4:]:
            self.register_buffer(name, torch.zeros(rows, dtype=torch.int64))
        self._room = rows
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        # Kept so that a step need not look at the device, which would have to wait for it.
        self._seen: int | None = 0

    @property
    def full(self) -> bool:
        """Whether it has as many rows as it will ever have."""
        return self._count() >= self._room

    def forward(self, pair: Pair, world: World) -> Pair:
        """The pair with this worker's share of the remembered rows behind its own.

        In training mode the rows of all workers are remembered then.
        """
        filled = min(self._count(), self._room)
        longer: dict[str, Any] = {}
        for name in REMEMBERED:
            known = getattr(self, name)[:filled].tensor_split(world.size)[world.rank]
            own = pair.need(name)
            longer[name] = torch.cat([own, known.to(own.dtype)])
        if self.training:
            self._remember(pair)
        return replace(pair, **longer, repeats=True)

    @torch.no_grad()
    def _remember(self, pair: Pair) -> None:
        news = global_rows([pair.need(name).detach() for name in REMEMBERED], pair.group)
        # More rows than there is room for: the last ones stay.
        count = len(news[0])
        kept = min(count, self._room)
        first = count - kept
        place = (
            self.seen + torch.arange(first, first + kept, device=self.seen.device)
        ) % self._room
        for name, new in zip(REMEMBERED, news, strict=True):
            buffer: Tensor = getattr(self, name)
            buffer.index_copy_(0, place, new[count - kept :].to(buffer.dtype))
        self.seen += count
        self._seen = self._count() + count

    def _count(self) -> int:
        if self._seen is None:
            self._seen = int(self.seen)
        return self._seen

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._seen = None
