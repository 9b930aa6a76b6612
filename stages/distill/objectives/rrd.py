"""Similarity to anchors: Relational Representation Distillation (RRD), arXiv 2407.12073."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

import torch
from torch import Tensor, nn

from egapipe.stages.distill.objectives.base import Facts, Objective, Pair, required
from egapipe.stages.distill.objectives.kd import divergence
from egapipe.stages.distill.objectives.shared.allreduce import global_mean
from egapipe.stages.distill.objectives.shared.autocast import full_precision
from egapipe.stages.distill.objectives.shared.directions import directions
from egapipe.stages.distill.objectives.shared.gather import global_rows
from egapipe.stages.distill.objectives.shared.shapes import check_rows

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from egapipe.pipeline.config.objectives import RrdOptions


def rrd_loss(
    student: Tensor,
    teacher: Tensor,
    anchors: Tensor,
    *,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.02,
    group: ProcessGroup | None = None,
) -> Tensor:
    """mean_i KL(softmax_k(cos(t_i, a_k) / tau_t) || softmax_k(cos(s_i, a_k) / tau_s)), a scalar.

    student, teacher: [B, D], both in the teacher's space. anchors: a, [M, D], without gradient.

    Source: Giakoumoglou and Stathaki 2024, eq. 4, with its temperatures; lightly-train distils the
    same way with 0.07 for both. The public code minimises the cross-entropy of the two, which is
    more by the entropy of the teacher's side.

    The mean is over the global batch. Computed in float32 at least. A zero row is as near to all
    anchors. No rows give 0. Raises ValueError for shapes that do not fit.
    """
    check_rows("RRD", student, teacher)
    with full_precision(student, teacher, anchors) as (student, teacher, anchors):
        to_anchors = directions(anchors.detach()).T
        p = directions(teacher) @ to_anchors / teacher_temperature
        q = directions(student) @ to_anchors / student_temperature
        return global_mean(divergence(p, q), group)


class Rrd(Objective):
    """RRD with the options of the configuration, and with its anchors.

    A linear layer takes the student's node to the width of the teacher's features. Anchors are
    features of cached rows: a queue of the last ones met, this batch's among them, which begins
    with rows drawn by the seed; or the centres that k-means finds among all rows, which stay.
    """

    needs = frozenset({"student", "teacher_features"})
    fitted: ClassVar[bool] = True
    replicated: ClassVar[frozenset[str]] = frozenset({"anchors", "place"})
    anchors: Tensor
    place: Tensor

    def __init__(self, options: RrdOptions, facts: Facts) -> None:
        super().__init__()
        self.options = options
        self.embed = nn.Linear(facts.student_dim, facts.teacher_features)
        self.register_buffer("anchors", facts.anchors(options.anchors, options.count))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))

    @classmethod
    def build(cls, options: RrdOptions, facts: Facts | None) -> Self:
        """Raises ValueError without facts, and what finding the anchors does."""
        return cls(options, required("rrd", facts))

    def forward(self, pair: Pair) -> Tensor:
        """`rrd_loss` of the global batch. In training mode a queue moves on first."""
        options, features = self.options, pair.need("teacher_features")
        if self.training and options.anchors == "queue":
            self._enqueue(features, pair.group)
        with full_precision(pair.student, features) as (student, teacher):
            return rrd_loss(
                self.embed(student),
                teacher,
                self.anchors,
                student_temperature=options.student_temperature,
                teacher_temperature=options.teacher_temperature,
                group=pair.group,
            )

    @torch.no_grad()
    def _enqueue(self, features: Tensor, group: ProcessGroup | None) -> None:
        (rows,) = global_rows([features.detach()], group)
        # More rows than anchors: the last ones stay.
        rows = rows[-len(self.anchors) :]
        room = torch.arange(len(rows), device=rows.device)
        at = (self.place + room) % len(self.anchors)
        self.anchors.index_copy_(0, at, rows.to(self.anchors.dtype))
        self.place += len(rows)
