"""Self-distillation: one view predicts what the average made of the other, arXiv 2010.12609."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

from torch import Tensor, nn

from egapipe.stages.distill.objectives.base import Facts, Objective, Pair, required
from egapipe.stages.distill.objectives.shared.allreduce import global_mean
from egapipe.stages.distill.objectives.shared.autocast import full_precision
from egapipe.stages.distill.objectives.shared.directions import directions
from egapipe.stages.distill.objectives.shared.shapes import check_rows
from egapipe.stages.distill.objectives.shared.two_views import two_views

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from egapipe.pipeline.config.objectives import IgsdOptions


def igsd_loss(
    student: Tensor,
    student_other: Tensor,
    teacher: Tensor,
    teacher_other: Tensor,
    *,
    group: ProcessGroup | None = None,
) -> Tensor:
    """mean_i (2 - 2 cos(s_i, t'_i) + 2 - 2 cos(s'_i, t_i)), a scalar.

    student s, student_other s': [B, D] of two views of the same images, predicted. teacher t,
    teacher_other t': [B, D] of the same, without gradient.

    Source: Zhang et al. 2020, eq. 3, and the authors' code, which is that of BYOL (Grill et al.
    2020, arXiv 2006.07733, eq. 2). The mean is over the global batch. Computed in float32 at least.
    A zero row has the cosine 0 with all. No rows give 0. Raises ValueError for shapes that do not
    fit.
    """
    for one, other in ((student, teacher_other), (student_other, teacher), (student, teacher)):
        check_rows("IGSD", one, other)
    sides = (student, student_other, teacher.detach(), teacher_other.detach())
    with full_precision(*sides) as rows:
        s, s_other, t, t_other = map(directions, rows)
        cosines = (s * t_other).sum(dim=1) + (s_other * t).sum(dim=1)
        return global_mean(4 - 2 * cosines, group)


class Igsd(Objective):
    """`igsd_loss` of two views of each row. A Linear, layer normalisation, ReLU and a Linear
    predict the teacher's node from the student's.

    For `teacher: average` it learns without labels and without a stored feature.

    Source: the authors' code, hlzhang109/IGSD, whose views are of graphs. BYOL's predictor has
    batch normalisation where this one has layer normalisation, with which no row's prediction
    depends on another row.
    """

    needs = frozenset({"student", "teacher"})
    views_per_row: ClassVar[int] = 2

    def __init__(self, options: IgsdOptions, facts: Facts) -> None:
        super().__init__()
        self.predictor = nn.Sequential(
            nn.Linear(facts.student_dim, options.hidden),
            nn.LayerNorm(options.hidden),
            nn.ReLU(),
            nn.Linear(options.hidden, facts.teacher_dim),
        )

    @classmethod
    def build(cls, options: IgsdOptions, facts: Facts | None) -> Self:
        """Raises ValueError without facts."""
        return cls(options, required("igsd", facts))

    def forward(self, pair: Pair) -> Tensor:
        """The loss of the batch of all workers."""
        with full_precision(pair.student, pair.teacher) as (student, teacher):
            predicted = two_views("igsd", self.predictor(student))
            return igsd_loss(*predicted, *two_views("igsd", teacher), group=pair.group)
