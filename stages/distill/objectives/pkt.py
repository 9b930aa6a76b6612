"""Probabilistic Knowledge Transfer (PKT), arXiv 1803.10837."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from egapipe.stages.distill.objectives.base import Objective, Pair
from egapipe.stages.distill.objectives.shared.autocast import full_precision
from egapipe.stages.distill.objectives.shared.gather import global_rows
from egapipe.stages.distill.objectives.shared.shapes import check_rows

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from egapipe.pipeline.config.objectives import PktOptions

EPS = 1e-7


def pkt_loss(student: Tensor, teacher: Tensor, *, group: ProcessGroup | None = None) -> Tensor:
    """1/B^2 sum_ij t_ij log((t_ij + eps) / (s_ij + eps)), a scalar, eps = 1e-7.

    student, teacher: [B, D], [B, D']. t_ij, s_ij: the probability that row i has row j as its
    neighbour, (1 + cos) / 2 divided by its sum over j, i itself included.

    Source: Passalis and Tefas 2018, section 3, with the cosine kernel. The paper leaves j = i out
    and sums over all entries; the public code keeps it and takes the mean, and so does this.

    group: the graph over the global batch: the rows of all workers are gathered. Memory is O(B^2).

    Computed in float32 at least. A zero row is as near to all rows, itself included, and receives
    no gradient. No rows give 0. Raises ValueError for shapes that do not fit.
    """
    check_rows("PKT", student, teacher, one_width=False)
    with full_precision(*global_rows([student, teacher], group)) as (student, teacher):
        s, t = _neighbours(student), _neighbours(teacher)
        terms = t * ((t + EPS) / (s + EPS)).log()
        return terms.sum() / max(1, terms.numel())


def _neighbours(rows: Tensor) -> Tensor:
    """[B, B] probabilities of the rows' neighbours."""
    square = rows.square().sum(dim=1, keepdim=True)
    zero = square == 0
    norm = square.masked_fill(zero, 1).sqrt().masked_fill(zero, 0)
    unit = rows / (norm + EPS)
    # Rounding may take a cosine below -1, where the logarithm would be of a negative number.
    near = ((unit @ unit.T + 1) / 2).clamp_min(0)
    return near / near.sum(dim=1, keepdim=True)


class Pkt(Objective):
    """PKT with the options of the configuration."""

    needs = frozenset({"student", "teacher"})

    def __init__(self, options: PktOptions) -> None:
        super().__init__()
        self.options = options

    def forward(self, pair: Pair) -> Tensor:
        """`pkt_loss` of the batch: of all workers' rows, or with scope "local" of this worker's."""
        return pkt_loss(pair.student, pair.teacher, group=pair.group_of(self.options.scope))
