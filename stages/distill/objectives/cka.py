"""Centred Kernel Alignment (CKA) as an objective: RCKA, arXiv 2401.11824."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from egapipe.stages.distill.objectives.base import Objective, Pair
from egapipe.stages.distill.objectives.shared.allreduce import global_sums
from egapipe.stages.distill.objectives.shared.autocast import full_precision
from egapipe.stages.distill.objectives.shared.pearson import centred_columns, rounding
from egapipe.stages.distill.objectives.shared.shapes import check_rows

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from egapipe.pipeline.config.objectives import CkaOptions


def cka_loss(student: Tensor, teacher: Tensor, *, group: ProcessGroup | None = None) -> Tensor:
    """1 - ||S'T||_F^2 / (||S'S||_F ||T'T||_F), a scalar, S and T with columns of mean 0.

    student, teacher: [B, D], [B, D']. It is 1 - <K_s, K_t> / (||K_s||_F ||K_t||_F) of the centred
    B x B graphs K = X X', from matrices of D x D: the correlation of two graphs, whatever the
    embeddings' rotation and scale.

    Source: Kornblith et al. 2019 (arXiv 1905.00414), eqs. 3 and 4, with the linear kernel; as an
    objective Zhou et al. 2024, whose public code leaves out the centring and the 1.

    group: the graph of the global batch, by all-reduces of 2 (D + D') and of D D' + D^2 + D'^2
    numbers, whatever B is. Computed in float32 at least. Embeddings without variance are aligned
    with nothing (1) and receive no gradient. No rows give 0. Raises ValueError for shapes that do
    not fit.
    """
    check_rows("CKA", student, teacher, one_width=False)
    with full_precision(student, teacher) as (student, teacher):
        (s, t), squares, rows = centred_columns([student, teacher], group)
        # Of one size, that squares of squares neither overflow nor vanish.
        sizes = [square.sum().clamp(min=torch.finfo(s.dtype).tiny).sqrt() for square in squares]
        s, t = s / sizes[0], t / sizes[1]
        st, ss, tt = global_sums([s.T @ t, s.T @ s, t.T @ t], group)
        own_s, own_t = ss.square().sum(), tt.square().sum()
        # Both are of rows whose squares add up to 1 before they were centred.
        least = rounding(s.dtype) ** 2
        vanishes = (own_s <= least) | (own_t <= least)
        norms = own_s.masked_fill(vanishes, 1).sqrt() * own_t.masked_fill(vanishes, 1).sqrt()
        aligned = (st.square().sum() / norms).masked_fill(vanishes, 0)
        return (1 - aligned) * rows.clamp(max=1)


class Cka(Objective):
    """CKA with the options of the configuration."""

    needs = frozenset({"student", "teacher"})

    def __init__(self, options: CkaOptions) -> None:
        super().__init__()
        self.options = options

    def forward(self, pair: Pair) -> Tensor:
        """`cka_loss` of the batch: of all workers' rows, or with scope "local" of this worker's."""
        return cka_loss(pair.student, pair.teacher, group=pair.group_of(self.options.scope))
