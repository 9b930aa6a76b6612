"""Correlation Congruence (CC), arXiv 1904.01802."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from egapipe.stages.distill.objectives.base import Objective, Pair
from egapipe.stages.distill.objectives.shared.allreduce import global_sums
from egapipe.stages.distill.objectives.shared.autocast import full_precision
from egapipe.stages.distill.objectives.shared.gather import global_rows
from egapipe.stages.distill.objectives.shared.shapes import check_rows

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from egapipe.pipeline.config.objectives import CcOptions


def cc_loss(student: Tensor, teacher: Tensor, *, group: ProcessGroup | None = None) -> Tensor:
    """mean_i <d_i, d_(i+1)>, a scalar, with d = |student - teacher| and i = 1 .. B - 1.

    student, teacher: [B, D]. The value depends on the order of the rows, which a training shuffles.

    Source: the CRD benchmark's form. The paper (Peng et al. 2019, section 3) compares the B x B
    correlations of the rows under a Gaussian kernel, 1/B^2 ||C_t - C_s||^2, in batches made by
    class; the public code takes this product of neighbouring rows, and so does this.

    group: rows of the global batch, in the order of the workers' ranks. Sums of pairs are
    all-reduced; of the rows only the first and the last of each worker are gathered, for the pairs
    that lie across two workers.

    Computed in float32 at least. Fewer than two rows give 0. Raises ValueError for shapes that
    differ or are not [B, D].
    """
    check_rows("CC", student, teacher)
    with full_precision(student, teacher) as (student, teacher):
        distance = (student - teacher).abs()
        within = (distance[:-1] * distance[1:]).sum()
        within, rows = global_sums([within, within.new_full((), len(distance))], group)
        ends = torch.cat([distance[:1], distance[-1:]])
        (ends,) = global_rows(
            [ends], group
        )  # first, last, first, last ... of the workers with rows
        across = (ends[1:-1:2] * ends[2::2]).sum()
        return (within + across) / (rows - 1).clamp(min=1)


class Cc(Objective):
    """CC with the options of the configuration."""

    needs = frozenset({"student", "teacher"})

    def __init__(self, options: CcOptions) -> None:
        super().__init__()
        self.options = options

    def forward(self, pair: Pair) -> Tensor:
        """`cc_loss` of the batch: of all workers' rows, or with scope "local" of this worker's."""
        return cc_loss(pair.student, pair.teacher, group=pair.group_of(self.options.scope))
