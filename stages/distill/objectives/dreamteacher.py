"""DreamTeacher's feature regression onto levels of a generative network, arXiv 2307.07487."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from egapipe.stages.distill.objectives.base import Facts, Objective, Pair
from egapipe.stages.distill.objectives.shared.allreduce import global_mean, global_sums
from egapipe.stages.distill.objectives.shared.autocast import full_precision
from egapipe.stages.distill.objectives.shared.directions import directions
from egapipe.stages.distill.objectives.shared.features import (
    one_size,
    pairs_of,
    places,
    require_kind,
)
from egapipe.stages.distill.objectives.shared.pyramid import Pyramid

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from egapipe.pipeline.config.objectives import DreamteacherOptions

Attention = Literal["image", "batch"]


def dreamteacher_loss(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    *,
    attention_weight: float = 10.0,
    attention: Attention = "image",
    group: ProcessGroup | None = None,
) -> Tensor:
    """1/L sum_l mean (s_l - LN(t_l))^2 + attention_weight / L sum_l mean_i ||q_s - q_t||_2.

    student, teacher: maps [B, C, H, W] of L levels, both of one shape a level. LN: each image to
    mean 0 and variance 1 over C, H and W. q = Q / ||Q||_2 of an image, with Q [H W] the sums over
    the channels of the squares at each place, of the teacher's maps as they are.

    Source: Li et al. 2023, eq. 1 to 3; they published no code, and that the squares are averaged
    over all entries, the distances over images, is not stated. attention "batch" is how an
    unofficial implementation (myxik/dreamteacher) has the second term: Q over the norm of the whole
    batch's, and the mean of the squared difference.

    The means are over the global batch. Computed in float32 at least. An image of zeros has no
    attention. No rows give 0. "batch" is a difference of numbers near 1. Raises ValueError for
    shapes that differ, or no level.
    """
    shapes = [list(s.shape) == list(t.shape) and s.dim() == 4 for s, t in _levels(student, teacher)]
    if not shapes or not all(shapes):
        listed = [(list(s.shape), list(t.shape)) for s, t in _levels(student, teacher)]
        raise ValueError(f"DreamTeacher needs pairs of [B, C, H, W] of one shape: {listed}")
    terms = []
    for student_level, teacher_level in _levels(student, teacher):
        with full_precision(student_level, teacher_level) as (s, t):
            regression = global_mean((s - _whitened(t)).square().flatten(1).mean(dim=1), group)
            apart = _apart(s, t, group) if attention == "image" else _batch_apart(s, t, group)
            terms.append(regression + attention_weight * apart)
    return torch.stack(terms).mean()


def _levels(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    if len(student) != len(teacher):
        raise ValueError(f"{len(student)} levels of the student, {len(teacher)} of the teacher")
    return list(zip(student, teacher, strict=True))


def _whitened(maps: Tensor) -> Tensor:
    return F.layer_norm(maps, maps.shape[1:])


def _attention(maps: Tensor) -> Tensor:
    """Q of each image, [B, H W]."""
    return places(maps).square().sum(dim=2)


def _apart(student: Tensor, teacher: Tensor, group: ProcessGroup | None) -> Tensor:
    apart = directions(_attention(student)) - directions(_attention(teacher))
    # The root of a sum of squares has no gradient at 0.
    square = apart.square().sum(dim=1)
    same = square <= torch.finfo(square.dtype).tiny
    return global_mean(square.masked_fill(same, 1).sqrt().masked_fill(same, 0), group)


def _batch_apart(student: Tensor, teacher: Tensor, group: ProcessGroup | None) -> Tensor:
    """mean (Q_s / |Q_s| - Q_t / |Q_t|)^2 with norms over the batch, from sums over it."""
    q, p = _attention(student), _attention(teacher)
    count = q.new_full((), q.numel())
    own, other, both, count = global_sums(
        [q.square().sum(), p.square().sum(), (q * p).sum(), count], group
    )
    norms = own * other
    vanishes = norms <= torch.finfo(q.dtype).tiny
    cosine = both / norms.masked_fill(vanishes, 1).sqrt()
    ones = (own > 0).to(q.dtype) + (other > 0).to(q.dtype)
    return (ones - 2 * cosine.masked_fill(vanishes, 0)) / count.clamp(min=1)


class Dreamteacher(Objective):
    """DreamTeacher on pairs of maps, named from fine to coarse: the student's go through a pyramid
    of `channels` and a 1 x 1 convolution to the teacher's channels; the finer of two sides is
    averaged down to the other."""

    needs: frozenset[str] = frozenset()

    def __init__(
        self, options: DreamteacherOptions, pyramid: Pyramid, regressors: nn.ModuleList
    ) -> None:
        """regressors: one a level, `channels` to the teacher's."""
        super().__init__()
        self.options = options
        self.pyramid = pyramid
        self.regressors = regressors

    @classmethod
    def build(cls, options: DreamteacherOptions, facts: Facts | None) -> Self:
        """Raises UsageError where there are no such features, or they are no maps."""
        pairs = pairs_of("dreamteacher", options, facts)
        require_kind("dreamteacher", pairs, 3)
        width = options.channels
        pyramid = Pyramid([student[0] for student, _ in pairs.values()], width)
        regressors = [nn.Conv2d(width, teacher[0], kernel_size=1) for _, teacher in pairs.values()]
        made = cls(options, pyramid, nn.ModuleList(regressors))
        made.features = tuple(pairs)
        return made

    def forward(self, pair: Pair) -> Tensor:
        """`dreamteacher_loss` of the global batch."""
        sides = [pair.sides(name) for name in self.features]
        with full_precision(*(side.student for side in sides)) as maps:
            levels = zip(self.regressors, self.pyramid(maps), sides, strict=True)
            compared = [one_size(regress(level), side.teacher) for regress, level, side in levels]
            return dreamteacher_loss(
                [student for student, _ in compared],
                [teacher for _, teacher in compared],
                attention_weight=self.options.attention_weight,
                attention=self.options.attention,
                group=pair.group,
            )
