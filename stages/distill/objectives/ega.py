"""Embedding Graph Alignment (EGA), arXiv 2211.13264."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from egapipe.pipeline.errors import UsageError
from egapipe.stages.distill.objectives.base import Objective, Pair
from egapipe.stages.distill.objectives.shared.allreduce import count_workers, global_sums
from egapipe.stages.distill.objectives.shared.autocast import full_precision
from egapipe.stages.distill.objectives.shared.blocks import sums_by_block
from egapipe.stages.distill.objectives.shared.form import Form, check_form
from egapipe.stages.distill.objectives.shared.pearson import unit_rows
from egapipe.stages.distill.objectives.shared.repeats import repeated, repeated_squares
from egapipe.stages.distill.objectives.shared.shapes import check_rows

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from egapipe.pipeline.config.objectives import EgaOptions


def ega_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    node_weight: float = 0.8,
    edge_weight: float = 0.24,
    form: Form = "auto",
    group: ProcessGroup | None = None,
    rows: Tensor | None = None,
) -> Tensor:
    """node_weight * ||N_st - I||_F + edge_weight * ||E_t - E_s||_F, a scalar.

    student, teacher: [B, D], after their node layers. E_t, E_s are the Pearson correlations between
    the rows of teacher and student, N_st those of teacher rows (down) with student rows (across).

    Source: Ma, Chen and Akata 2022, section 3. The weights are the public code's, which gives NaN
    for a row without variance.

    form: "direct" builds the B x B matrices, "factored" the same value from D x D ones, and "auto"
    takes the factored form for B > 1.5 D: with a teacher that needs no gradient they multiply
    6 B^2 D against 9 B D^2 numbers, and that is where the times cross. Forward and backward in ms,
    direct / factored, D = 256, float32, one CPU thread: B 64 0.5 / 1.5, B 384 6.1 / 6.2,
    B 512 9.4 / 7.6, B 1024 43 / 15, B 4096 1016 / 67.

    group: the graph of the global batch, whose rows the workers of the group share in any way, even
    unevenly, by one all-reduce of 3 D^2 + 2 numbers; always in the factored form. Each worker
    returns the same global loss, and the mean over workers of the parameters' gradients is its
    gradient (see `Objective`).

    rows: int64 [B], where some may be of one image, whose numbers are then equal: that it is not
    like itself is not asked for. N_st is compared with I but for pairs of such rows. Edges are not
    concerned: an image is like itself to student and teacher.

    Computed, and returned, in float32 at least, under autocast too (with the backward pass outside
    of it, as torch asks for); float64 stays float64. A row without variance correlates with
    nothing, itself included: it adds 1 to ||N_st - I||^2. A norm that is zero has a zero gradient.
    No rows give 0, one row gives node_weight * |1 - r|. NaN in, NaN out. The factored form takes
    the root of a difference: it sees no norm below about sqrt(eps B), unless student and teacher
    come close row by row, when the edges stay exact. Many rows are worked on block by block: beside
    the inputs and their gradients its memory does not grow with B (`sums_by_block`).

    Raises ValueError: shapes that differ or are not [B, D], an unknown form, or the direct form
    with several workers.
    """
    check_rows("EGA", student, teacher)
    check_form(form)
    if form == "direct" and count_workers(group) > 1:
        raise ValueError("the direct form sees one worker's rows only: use auto or factored")
    with full_precision(student, teacher) as (student, teacher):
        if _is_factored(form, student, group):
            node, edge = _factored(student, teacher, group, rows)
        else:
            node, edge = _direct(unit_rows(student), unit_rows(teacher), rows)
        return node_weight * node + edge_weight * edge


class Ega(Objective):
    """EGA with the options of the configuration."""

    needs = frozenset({"student", "teacher"})

    def __init__(self, options: EgaOptions) -> None:
        super().__init__()
        self.options = options

    def forward(self, pair: Pair) -> Tensor:
        """`ega_loss` of the batch: of all workers' rows, or with scope "local" of this worker's.

        Raises UsageError for form "direct" with several workers and scope "global".
        """
        options = self.options
        group = pair.group_of(options.scope)
        if options.form == "direct" and count_workers(group) > 1:
            raise UsageError(
                "distill.objective.ega: form direct cannot see the rows of other workers: "
                "set form to auto or factored, or scope to local"
            )
        return ega_loss(
            pair.student,
            pair.teacher,
            node_weight=options.node_weight,
            edge_weight=options.edge_weight,
            form=options.form,
            group=group,
            rows=pair.rows if pair.repeats else None,
        )


def _is_factored(form: Form, rows: Tensor, group: ProcessGroup | None) -> bool:
    if form == "auto" and count_workers(group) == 1:
        batch, dim = rows.shape
        return 2 * batch > 3 * dim
    return form != "direct"


def _direct(zs: Tensor, zt: Tensor, rows: Tensor | None) -> tuple[Tensor, Tensor]:
    """||N_st - I||_F and ||E_t - E_s||_F by the definition."""
    identity = torch.eye(len(zs), dtype=zs.dtype, device=zs.device)
    apart = zt @ zs.T - identity
    if rows is not None:
        apart = apart.masked_fill(repeated(rows), 0)
    return _frobenius(apart), _frobenius(zt @ zt.T - zs @ zs.T)


def _factored(
    student: Tensor, teacher: Tensor, group: ProcessGroup | None, numbers: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The same norms from sums over rows. With P = Zt - Zs, Q = Zt + Zs and M = Q'P,

        ||E_t - E_s||^2 = 1/2 (<P'P, Q'Q> + <M, M'>)
        ||N_st - I||^2  = <Zt'Zt, Zs'Zs> - 2 <Zt, Zs> + B
        Zt'Zt, Zs'Zs    = 1/4 (P'P + Q'Q +- (M + M'))

    Small distances stay accurate: P carries them, no two large numbers are subtracted. From
    ||N_st - I||^2 the squares of pairs of one row are taken off again.
    """
    sums = sums_by_block(_row_sums, student, teacher)
    rows = student.new_full((), len(student))
    pp, qq, m, trace, rows = global_sums([*sums, rows], group)
    both, apart = pp + qq, m + m.T
    overlap = ((both + apart) * (both - apart)).sum() / 16
    square = overlap - 2 * trace + rows
    if numbers is not None:
        square = square - repeated_squares(unit_rows(teacher), unit_rows(student), numbers, group)
    node = _root(square)
    edge = _root(((pp * qq).sum() + (m * m.T).sum()) / 2)
    return node, edge


def _row_sums(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """P'P, Q'Q, Q'P and <Zt, Zs>."""
    zs, zt = unit_rows(student), unit_rows(teacher)
    p, q = zt - zs, zt + zs
    return p.T @ p, q.T @ q, q.T @ p, (zt * zs).sum()


def _frobenius(matrix: Tensor) -> Tensor:
    """Frobenius norm; its gradient at zero is zero. In two steps because torch's norm over all
    entries at once adds float32 squares one by one: 5e-3 off at 8192 x 8192, this 1e-7."""
    rows: Tensor = torch.linalg.vector_norm(matrix, dim=1)
    norm: Tensor = torch.linalg.vector_norm(rows)
    return norm


def _root(square: Tensor) -> Tensor:
    """Root of a squared norm; 0 with gradient 0 where that is zero, or negative by rounding."""
    vanishes = square <= 0
    return square.masked_fill(vanishes, 1).sqrt().masked_fill(vanishes, 0)
