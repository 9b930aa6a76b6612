"""Similarity-Preserving distillation (SP), arXiv 1907.09682."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from egapipe.stages.distill.objectives.base import Facts, Objective, Pair, Sides
from egapipe.stages.distill.objectives.shared.allreduce import count_workers, global_sums
from egapipe.stages.distill.objectives.shared.autocast import full_precision
from egapipe.stages.distill.objectives.shared.directions import directions
from egapipe.stages.distill.objectives.shared.features import pairs_of
from egapipe.stages.distill.objectives.shared.form import Form, check_form
from egapipe.stages.distill.objectives.shared.gather import global_rows
from egapipe.stages.distill.objectives.shared.gradients import with_gradients

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from egapipe.pipeline.config.objectives import SpOptions

AUTO = 1.5
"""From so many times more rows than columns on, the factored form is the faster one."""


def sp_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    form: Form = "auto",
    group: ProcessGroup | None = None,
) -> Tensor:
    """||G_t - G_s||_F^2 / B^2, a scalar, with G = X X' and each row of it scaled to unit norm.

    student, teacher: [B, ...], embeddings or others, flattened to X; widths may differ.

    Source: Tung and Mori 2019, section 3; the public code is the paper's formula.

    form: "direct" builds the B x B matrices, "factored" the same value and gradient from D x D
    ones, and "auto" takes the factored form for B > AUTO D, where B is that of all workers.

    group: the graph over the global batch. The direct form gathers the rows, the factored form
    all-reduces 3 D x D matrices, then 1 and then 2 (the gradient's), whatever B is.

    Computed in float32 at least. A zero row resembles nothing, itself included, and receives no
    gradient. No rows give 0. The factored form is a difference of numbers near 2 / B: it does not
    see a value below about eps / B, and may give a negative one there; its gradient stays good.
    Raises ValueError for shapes that do not fit, or an unknown form.
    """
    if min(student.dim(), teacher.dim()) < 2 or len(student) != len(teacher):
        shapes = f"student {list(student.shape)}, teacher {list(teacher.shape)}"
        raise ValueError(f"SP needs two [B, ...] tensors with as many rows: {shapes}")
    check_form(form)
    with full_precision(student.flatten(1), teacher.flatten(1)) as (student, teacher):
        if _is_factored(form, student, teacher, group):
            return _factored(student, teacher, group)
        student, teacher = global_rows([student, teacher], group)
        apart = directions(teacher @ teacher.T) - directions(student @ student.T)
        return apart.square().sum() / max(1, apart.numel())


def _is_factored(form: Form, student: Tensor, teacher: Tensor, group: ProcessGroup | None) -> bool:
    if form != "auto":
        return form == "factored"
    rows = len(student)
    if count_workers(group) > 1:
        (total,) = global_sums([torch.full((1,), rows, device=student.device)], group)
        rows = int(total)
    return rows > AUTO * max(student.shape[1], teacher.shape[1])


def _factored(student: Tensor, teacher: Tensor, group: ProcessGroup | None) -> Tensor:
    """The same from sums over the rows s of S and t of T. With unit rows a = s / |S s|, b alike,

        |S s|^2 = s S'S s',  G_s = A S',  G_t = B T'
        ||G_t - G_s||^2 = rows of A that are not 0 + rows of B that are not 0 - 2 <A'B, S'T>

    The gradient is taken here, by hand: |S s| ties a row to those of all workers, so that its part
    of the gradient has to be summed over them, which a backward pass must not do (`global_sums`).
    """
    s, t = student.detach(), teacher.detach()
    rows = s.new_full((), len(s))
    ss, tt, st, rows = global_sums([s.T @ s, t.T @ t, s.T @ t, rows], group)
    (a, inverse_s), (b, inverse_t) = _unit(s, ss), _unit(t, tt)
    ones = (inverse_s > 0).sum() + (inverse_t > 0).sum()
    ab, ones = global_sums([a.T @ b, ones.to(s.dtype)], group)
    square = rows.clamp(min=1).square()
    value = (ones - 2 * (ab * st).sum()) / square
    factor = -2 * count_workers(group) / square
    known = []
    if student.requires_grad:
        by_s = _through_unit(s, a, inverse_s, ss, b @ st.T, group) + t @ ab.T
        known.append((student, factor * by_s))
    if teacher.requires_grad:
        by_t = _through_unit(t, b, inverse_t, tt, a @ st, group) + s @ ab
        known.append((teacher, factor * by_t))
    return with_gradients(value, known)


def _unit(rows: Tensor, gram: Tensor) -> tuple[Tensor, Tensor]:
    """Rows x / |X x| and 1 / |X x|, both 0 for a zero row."""
    square = (rows @ gram * rows).sum(dim=1, keepdim=True)
    vanishes = square <= torch.finfo(rows.dtype).tiny
    inverse = square.masked_fill(vanishes, 1).rsqrt().masked_fill(vanishes, 0)
    return rows * inverse, inverse


def _through_unit(
    rows: Tensor,
    unit: Tensor,
    inverse: Tensor,
    gram: Tensor,
    gradient: Tensor,
    group: ProcessGroup | None,
) -> Tensor:
    """From the gradient by `unit` to that by `rows`, what goes through everybody's `gram` too."""
    along = (gradient * unit).sum(dim=1, keepdim=True)
    (by_gram,) = global_sums([unit.T @ (along * unit)], group)
    return inverse * (gradient - along * (unit @ gram)) - rows @ by_gram


class Sp(Objective):
    """SP on the embeddings, or on pairs of features, added up."""

    needs = frozenset({"student", "teacher"})

    def __init__(self, options: SpOptions, features: tuple[str, ...] = ()) -> None:
        """features: the pairs that are compared, in place of the embeddings."""
        super().__init__()
        self.options = options
        self.features = features

    @classmethod
    def build(cls, options: SpOptions, facts: Facts | None) -> Self:
        """Raises UsageError where features are compared and there are none."""
        return cls(options, tuple(pairs_of("sp", options, facts)))

    def forward(self, pair: Pair) -> Tensor:
        """`sp_loss` of the batch: of all workers' rows, or with scope "local" of this worker's."""
        group = pair.group_of(self.options.scope)
        sides = [pair.sides(n) for n in self.features] or [Sides(pair.student, pair.teacher)]
        losses = [sp_loss(s, t, form=self.options.form, group=group) for s, t in sides]
        return torch.stack(losses).sum()
