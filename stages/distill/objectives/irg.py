"""Instance Relationship Graph (IRG), Liu et al., CVPR 2019."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from egapipe.stages.distill.objectives.base import Objective, Pair
from egapipe.stages.distill.objectives.shared.autocast import full_precision
from egapipe.stages.distill.objectives.shared.gather import global_rows
from egapipe.stages.distill.objectives.shared.shapes import check_rows

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from egapipe.pipeline.config.objectives import IrgOptions


def irg_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    vertex_weight: float = 0.1,
    edge_weight: float = 5.0,
    normalize: bool = True,
    group: ProcessGroup | None = None,
) -> Tensor:
    """vertex_weight * mean (s - t)^2 + edge_weight * mean (A_s - A_t)^2, a scalar.

    student, teacher: [B, D]. A(i, j) = ||x_i - x_j||^2, [B, B]; with `normalize` divided by its
    largest entry.

    Source: Liu et al. 2019, section 3: L_IRG = lambda_1 sum_i ||t_i - s_i||^2 + lambda_2
    ||A_t - A_s||^2, on the embedding layer. Its transformations between layers need the teacher's
    feature maps of several layers, which a store does not hold. The paper sums and leaves the edges
    as they are (`normalize=False`), of the fourth order in the embeddings, so that its weights
    depend on B and on their scale; the public PyTorch versions take means, divide the edges by the
    largest and weigh 0.1 and 5, and so does this.

    group: the graph over the global batch: the rows of all workers are gathered. Memory is O(B^2).

    Computed in float32 at least. Rows that coincide have no edge and pull on none. No rows give 0.
    Raises ValueError for shapes that differ or are not [B, D].
    """
    check_rows("IRG", student, teacher)
    with full_precision(*global_rows([student, teacher], group)) as (student, teacher):
        vertices = _mean((student - teacher).square())
        edges = _mean((_edges(student, normalize) - _edges(teacher, normalize)).square())
        return vertex_weight * vertices + edge_weight * edges


def _edges(rows: Tensor, normalize: bool) -> Tensor:
    """Squared distances between all rows, [B, B]."""
    # Distances first: a difference of squared norms would lose the small ones.
    square = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").square()
    if not normalize or square.numel() == 0:
        return square
    largest = square.amax()
    return square / largest.masked_fill(largest <= 0, 1)


def _mean(values: Tensor) -> Tensor:
    return values.sum() / max(1, values.numel())


class Irg(Objective):
    """IRG with the options of the configuration."""

    needs = frozenset({"student", "teacher"})

    def __init__(self, options: IrgOptions) -> None:
        super().__init__()
        self.options = options

    def forward(self, pair: Pair) -> Tensor:
        """`irg_loss` of the batch: of all workers' rows, or with scope "local" of this worker's."""
        options = self.options
        return irg_loss(
            pair.student,
            pair.teacher,
            vertex_weight=options.vertex_weight,
            edge_weight=options.edge_weight,
            normalize=options.normalize,
            group=pair.group_of(options.scope),
        )
