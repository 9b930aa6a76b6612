"""Contrast of two views, and how a peer sees it: online distillation (DoGo), arXiv 2104.09866."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from egapipe.stages.distill.objectives.base import Facts, Objective, Pair, required
from egapipe.stages.distill.objectives.kd import divergence
from egapipe.stages.distill.objectives.shared.autocast import full_precision
from egapipe.stages.distill.objectives.shared.directions import directions
from egapipe.stages.distill.objectives.shared.gather import global_rows
from egapipe.stages.distill.objectives.shared.shapes import check_rows
from egapipe.stages.distill.objectives.shared.two_views import two_views

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from egapipe.pipeline.config.objectives import DogoOptions


def ntxent_loss(
    student: Tensor,
    student_other: Tensor,
    *,
    temperature: float = 0.5,
    group: ProcessGroup | None = None,
) -> Tensor:
    """mean_i -log softmax_(j != i)(cos(z_i, z_j) / tau) at i's other view, over the 2 B rows z, a
    scalar.

    student, student_other: [B, D] of two views of the same images.

    Source: NT-Xent of SimCLR (Chen et al. 2020, arXiv 2002.05709, eq. 1), which the authors' code
    of DoGo takes. Over the rows of all workers, which are gathered: O(B^2) memory. Computed in
    float32 at least. A zero row has the cosine 0 with all. No rows give 0. Raises ValueError for
    shapes that do not fit.
    """
    check_rows("NT-Xent", student, student_other)
    student, student_other = global_rows([student, student_other], group)
    with full_precision(student, student_other) as (student, student_other):
        rows = directions(torch.cat([student, student_other]))
        count = len(student)
        itself = torch.eye(2 * count, dtype=torch.bool, device=rows.device)
        cosines = (rows @ rows.T / temperature).masked_fill(itself, torch.finfo(rows.dtype).min)
        other = torch.arange(2 * count, device=rows.device).roll(count)
        return F.cross_entropy(cosines, other, reduction="sum") / max(1, 2 * count)


def dogo_loss(
    student: Tensor,
    student_other: Tensor,
    peer: Tensor,
    peer_other: Tensor,
    *,
    temperature: float = 0.1,
    mean: Literal["rows", "entries"] = "rows",
    group: ProcessGroup | None = None,
) -> Tensor:
    """mean_i KL(softmax_j(cos(p_i, p'_j) / tau) || softmax_j(cos(s_i, s'_j) / tau)), a scalar.

    student s, student_other s': [B, D] of two views of the same images. peer p, p': [B, D'] of the
    same, without gradient.

    Source: Bhat et al. 2021, eq. 3 to 5. The mean is over the B rows; the authors' code takes it
    over the B^2 entries (`mean` "entries"), so that a weight means something else in each batch
    size. Over the rows of all workers, which are gathered. Computed in float32 at least. A zero row
    is as near to all others. No rows give 0. Raises ValueError for shapes that do not fit.
    """
    check_rows("DoGo", student, student_other)
    check_rows("DoGo", peer, peer_other)
    sides = [student, student_other, peer.detach(), peer_other.detach()]
    if len(student) != len(peer):
        raise ValueError(f"DoGo: {len(student)} rows of the student and {len(peer)} of its peer")
    with full_precision(*global_rows(sides, group)) as rows:
        s, s_other, p, p_other = map(directions, rows)
        known, seen = p @ p_other.T / temperature, s @ s_other.T / temperature
        count = len(s) if mean == "rows" else len(s) ** 2
        return divergence(known, seen).sum() / max(1, count)


class Dogo(Objective):
    """`ntxent_loss` + peer_weight * `dogo_loss` of projected nodes of two views of each row.

    The projection is a Linear without bias, batch normalisation, ReLU and a Linear; that of a peer
    is its own. Neither needs a label nor a stored feature. With a stored teacher that one's nodes
    are in the peer's place, as they are.

    Source: the authors' code, NeurAI-Lab/DoGo, whose encoder has no node layer before it.
    """

    needs = frozenset({"student", "teacher"})
    views_per_row: ClassVar[int] = 2
    local_statistics: ClassVar[bool] = True

    def __init__(self, options: DogoOptions, facts: Facts) -> None:
        super().__init__()
        self.options = options
        self.projection = nn.Sequential(
            nn.Linear(facts.student_dim, options.hidden, bias=False),
            nn.BatchNorm1d(options.hidden),
            nn.ReLU(),
            nn.Linear(options.hidden, options.dim),
        )

    @classmethod
    def build(cls, options: DogoOptions, facts: Facts | None) -> Self:
        """Raises ValueError without facts."""
        return cls(options, required("dogo", facts))

    def projected(self, node: Tensor) -> Tensor:
        """What is contrasted, float32 at least, [B, dim]."""
        with full_precision(node) as (node,):
            projected: Tensor = self.projection(node)
            return projected

    def forward(self, pair: Pair) -> Tensor:
        """Both losses of the batch of all workers, or of this one's rows."""
        options, group = self.options, pair.group_of(self.options.scope)
        student = two_views("dogo", pair.student)
        loss = ntxent_loss(*student, temperature=options.temperature, group=group)
        if options.peer_weight == 0:
            return loss
        peer = two_views("dogo", pair.teacher)
        return loss + options.peer_weight * dogo_loss(
            *student, *peer, temperature=options.peer_temperature, mean=options.mean, group=group
        )
