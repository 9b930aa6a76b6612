"""Relational Knowledge Distillation (RKD), arXiv 1904.05068."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from egapipe.stages.distill.objectives.base import Objective, Pair
from egapipe.stages.distill.objectives.shared.autocast import full_precision
from egapipe.stages.distill.objectives.shared.directions import directions
from egapipe.stages.distill.objectives.shared.gather import global_rows
from egapipe.stages.distill.objectives.shared.shapes import check_rows

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from egapipe.pipeline.config.objectives import RkdOptions

CHUNK = 2**24
"""Numbers in the largest tensor of the angles; beyond it they are computed vertex by vertex."""


def rkd_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    distance_weight: float = 25.0,
    angle_weight: float = 50.0,
    group: ProcessGroup | None = None,
) -> Tensor:
    """distance_weight * mean_ij h(d_ij) + angle_weight * mean_ijk h(a_ijk), a scalar.

    student, teacher: [B, D], [B, D']. d is the difference between student and teacher of
    ||x_i - x_j|| / (mean of the positive ones), a that of cos of the angle at x_j between x_i and
    x_k; h is the Huber loss with delta 1. The teacher receives no gradient.

    Source: Park et al. 2019, section 3.2. The paper averages over tuples of distinct rows; the
    public code over all B^2 and B^3, of which those with a repeated row are zero, and so does this.

    group: the graph over the global batch: the rows of all workers are gathered. Time is O(B^3 D).
    Memory is O(B^2 (B + D)) to begin with, and is held near 2^24 numbers by computing the angles
    again in the backward pass.

    Computed in float32 at least. Rows that coincide have no distance and no angle, and pull on
    none. No rows give 0. Raises ValueError for shapes that do not fit.
    """
    check_rows("RKD", student, teacher, one_width=False)
    with full_precision(*global_rows([student, teacher.detach()], group)) as (student, teacher):
        batch = max(1, len(student))
        distances = _huber(_distances(student), _distances(teacher)) / batch**2
        angles = _angles_apart(student, teacher) / batch**3
        return distance_weight * distances + angle_weight * angles


def _huber(student: Tensor, teacher: Tensor) -> Tensor:
    return F.smooth_l1_loss(student, teacher, reduction="sum")


def _distances(rows: Tensor) -> Tensor:
    """[B, B] distances in units of their mean."""
    distance = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    mean = distance.sum() / (distance > 0).sum().clamp(min=1)
    return distance / mean.masked_fill(mean <= 0, 1)


def _angles_apart(student: Tensor, teacher: Tensor) -> Tensor:
    """Sum of the Huber loss over all B^3 angles."""
    batch, width = student.shape
    vertices = max(1, CHUNK // max(1, batch * max(batch, width, teacher.shape[1])))
    if vertices >= batch:
        return _angles_at(student, teacher, slice(0, batch))
    total = student.new_zeros(())
    for start in range(0, batch, vertices):
        at = slice(start, start + vertices)
        part = checkpoint(_angles_at, student, teacher, at, use_reentrant=False)
        total = total + cast(Tensor, part)
    return total


def _angles_at(student: Tensor, teacher: Tensor, at: slice) -> Tensor:
    """The same over the angles at some of the vertices."""
    return _huber(_cosines(student, at), _cosines(teacher, at))


def _cosines(rows: Tensor, at: slice) -> Tensor:
    """cos of the angle at each vertex j between rows i and k, [vertices, B, B]."""
    edges = directions(rows[None, :, :] - rows[at, None, :])
    return edges @ edges.mT


class Rkd(Objective):
    """RKD with the options of the configuration."""

    needs = frozenset({"student", "teacher"})

    def __init__(self, options: RkdOptions) -> None:
        super().__init__()
        self.options = options

    def forward(self, pair: Pair) -> Tensor:
        """`rkd_loss` of the batch: of all workers' rows, or with scope "local" of this worker's."""
        options = self.options
        return rkd_loss(
            pair.student,
            pair.teacher,
            distance_weight=options.distance_weight,
            angle_weight=options.angle_weight,
            group=pair.group_of(options.scope),
        )
