"""Self-supervision as knowledge: how turned images are told apart (SSKD), arXiv 2006.07114."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from egapipe.pipeline.errors import UsageError
from egapipe.stages.distill.objectives.base import Facts, Objective, Pair, required
from egapipe.stages.distill.objectives.kd import divergence
from egapipe.stages.distill.objectives.shared.autocast import full_precision
from egapipe.stages.distill.objectives.shared.directions import directions
from egapipe.stages.distill.objectives.shared.gather import global_rows
from egapipe.stages.distill.objectives.shared.shapes import check_logits
from egapipe.stages.distill.objectives.start import Start

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from egapipe.pipeline.config.objectives import SskdOptions

TURNS = 4


def sskd_tf_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float = 4.0,
    keep: float = 1.0,
    group: ProcessGroup | None = None,
) -> Tensor:
    """T^2 * mean over kept turned rows of KL(softmax(t / T) || softmax(s / T)), a scalar.

    student_logits s, teacher_logits t: [4 B, C], each image plain and then turned three times.
    labels: int64 [B], -1 = unlabelled, which counts as what the teacher says of the plain image.

    Kept are the rows whose label ranks first in t, and of the others the int(keep * others) whose
    label ranks best; of equal ranks the first rows. The teacher has no gradient.

    Source: Xu et al. 2020, section 3.3, and the authors' code. Over the batch of all workers.
    Computed in float32 at least. No rows give 0. Raises ValueError for shapes that do not fit.
    """
    check_logits("SSKD", student_logits, teacher_logits)
    student, teacher = global_rows([student_logits, teacher_logits.detach()], group)
    [known] = global_rows([labels], group)
    with full_precision(student, teacher) as (student, teacher):
        (_, s), (plain, t) = _plain_and_turned(student), _plain_and_turned(teacher)
        known = torch.where(known >= 0, known, plain.argmax(dim=1))
        own = known.repeat_interleave(TURNS - 1)
        losses = divergence(t / temperature, s / temperature)
        return temperature**2 * _mean_of_kept(losses, t, own, keep)


def sskd_ss_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float = 0.5,
    keep: float = 0.75,
    group: ProcessGroup | None = None,
) -> Tensor:
    """tau^2 * mean over kept turned rows of KL(softmax(A_t / tau) || softmax(A_s / tau)), a scalar,
    with A = cosines of the turned images with the plain ones, [3 B, B], a side.

    student: [4 B, D] and teacher: [4 B, D'], each image plain and then turned three times.

    Kept are the rows whose own image ranks first in A_t, and of the others the int(keep * others)
    where it ranks best; of equal ranks the first rows. The teacher has no gradient.

    Source: Xu et al. 2020, eq. 4 to 6, and the authors' code. Over the batch of all workers, whose
    rows are gathered. Computed in float32 at least. A zero row is as near to all others. No rows
    give 0. Raises ValueError for shapes that do not fit.
    """
    student, teacher = global_rows([student, teacher.detach()], group)
    with full_precision(student, teacher) as (student, teacher):
        seen, known = _cosines(student), _cosines(teacher)
        losses = divergence(known / temperature, seen / temperature)
        return temperature**2 * _mean_of_kept(losses, known, _own_image(known), keep)


def pretext_loss(teacher: Tensor) -> Tensor:
    """Mean cross-entropy of cosines [3 B, B] of turned images with plain ones, without temperature,
    the own image being right; a scalar, 0 for no rows. teacher: [4 B, D]. Source: see the others.
    """
    with full_precision(teacher) as (teacher,):
        cosines = _cosines(teacher)
        total = F.cross_entropy(cosines, _own_image(cosines), reduction="sum")
        return total / max(1, len(cosines))


def _plain_and_turned(rows: Tensor) -> tuple[Tensor, Tensor]:
    """[B, D] and [3 B, D] of [4 B, D]. Raises ValueError where they are no fours."""
    if len(rows) % TURNS:
        raise ValueError(f"SSKD: {len(rows)} rows are not each image and its three turned copies")
    fours = rows.reshape(len(rows) // TURNS, TURNS, *rows.shape[1:])
    return fours[:, 0], fours[:, 1:].reshape(-1, *rows.shape[1:])


def _cosines(rows: Tensor) -> Tensor:
    plain, turned = _plain_and_turned(directions(rows))
    return turned @ plain.T


def _own_image(cosines: Tensor) -> Tensor:
    return torch.arange(len(cosines), device=cosines.device) // (TURNS - 1)


def _mean_of_kept(losses: Tensor, scores: Tensor, right: Tensor, keep: float) -> Tensor:
    """Mean of losses [N] of the rows that are kept by the rank of `right` [N] in scores [N, M]."""
    rank = (scores > scores.gather(1, right[:, None])).sum(dim=1)
    order = rank.argsort(stable=True)
    place = torch.empty_like(order).scatter_(0, order, torch.arange(len(rank), device=rank.device))
    first = (rank == 0).sum()
    kept = place < first + ((len(rank) - first).double() * keep).floor()
    total = torch.where(kept, losses, torch.zeros_like(losses)).sum()
    return total / kept.sum().clamp(min=1)


class Sskd(Objective):
    """tf_weight * `sskd_tf_loss` + ss_weight * `sskd_ss_loss`, beside cross-entropy and `kd` on the
    plain images, which these do not hold.

    The embeddings of the second are of two heads, Linear, ReLU and Linear: the student's is on its
    node and learns with it, the teacher's is on its features and is fitted by `pretext_loss` before
    the student starts, by SGD whose rate falls to a tenth at a half and at three quarters of the
    epochs; then it is frozen.

    Source: the authors' code, xuguodong03/SSKD, with its weights, temperatures and shares. There
    both heads are on pooled features, a student's without a node layer, and the teacher's views are
    drawn anew in each epoch.
    """

    needs = frozenset({"student", "student_logits", "teacher_logits", "labels", "teacher_features"})
    fitted: ClassVar[bool] = True
    turned: ClassVar[bool] = True

    def __init__(self, options: SskdOptions, facts: Facts) -> None:
        super().__init__()
        self.options = options
        self.student_head = _head(facts.student_dim, options.dim)
        self.teacher_head = _head(facts.teacher_features, options.dim).requires_grad_(False)

    @classmethod
    def build(cls, options: SskdOptions, facts: Facts | None) -> Self:
        """Raises UsageError where a batch has no turned views, ValueError without facts."""
        facts = required("sskd", facts)
        if facts.turns != TURNS:
            raise UsageError(
                "distill.objective.sskd compares turned views: extract with views.turns 4, and set "
                "distill.student_view to paired and distill.views_per_row to 4"
            )
        return cls(options, facts)

    def fit(self, start: Start) -> None:
        """Fit the teacher's head, see `Objective`."""
        options = self.options
        self.teacher_head.requires_grad_(True)
        optimizer = torch.optim.SGD(
            self.teacher_head.parameters(), lr=options.fit_lr, momentum=0.9, weight_decay=5e-4
        )
        for epoch in range(options.fit_epochs):
            falls = sum(epoch >= share * options.fit_epochs for share in (0.5, 0.75))
            for group in optimizer.param_groups:
                group["lr"] = options.fit_lr * 0.1**falls
            for cached in start.batches(epoch):
                optimizer.zero_grad()
                pretext_loss(self.teacher_head(cached.features)).backward()
                optimizer.step()
        self.teacher_head.requires_grad_(False)

    def forward(self, pair: Pair) -> Tensor:
        """Both losses of the batch of all workers, or of this one's rows."""
        options, group = self.options, pair.group_of(self.options.scope)
        plain_labels, _ = _plain_and_turned(pair.need("labels"))
        tf = sskd_tf_loss(
            pair.need("student_logits"),
            pair.need("teacher_logits"),
            plain_labels,
            temperature=options.tf_temperature,
            keep=options.tf_keep,
            group=group,
        )
        with full_precision(pair.student, pair.need("teacher_features")) as (student, teacher):
            ss = sskd_ss_loss(
                self.student_head(student),
                self.teacher_head(teacher),
                temperature=options.ss_temperature,
                keep=options.ss_keep,
                group=group,
            )
        return options.tf_weight * tf + options.ss_weight * ss


def _head(width: int, dim: int | None) -> nn.Sequential:
    out = dim or width
    return nn.Sequential(nn.Linear(width, out), nn.ReLU(), nn.Linear(out, out))
