"""Codes of bits for two modalities: similarity-preserving hashing, arXiv 1207.1522."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from egapipe.stages.distill.objectives.base import Facts, Objective, Pair, required
from egapipe.stages.distill.objectives.shared.autocast import full_precision
from egapipe.stages.distill.objectives.shared.gather import global_rows
from egapipe.stages.distill.objectives.shared.shapes import check_labels, check_rows

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from egapipe.pipeline.config.objectives import HashingOptions


def hashing_loss(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    *,
    margin: float = 4.0,
    intra_weight: float = 1.0,
    group: ProcessGroup | None = None,
) -> Tensor:
    """l(s, t) + w (l(s, s) + l(t, t)), with l(x, y) = 1/2 mean_(alike) |x_i - y_j|^2
    + 1/2 mean_(others) max(0, m - |x_i - y_j|)^2 over pairs of a batch, a scalar.

    student s, teacher t: [B, K], the codes before their signs, both of which learn. labels: int64
    [B]; alike are rows of one class. A row is like itself in the other modality, and is no pair
    with itself in its own. -1 = unlabelled, which is like nothing else.

    Source: Masci, Bronstein, Bronstein and Schmidhuber 2014, eq. 3 to 5, over all pairs of a batch;
    craffel/midi-dataset draws pairs and adds them up. Over the rows of all workers, which are
    gathered: O(B^2) memory. Computed in float32 at least. A mean over nothing is 0. Raises
    ValueError for shapes that do not fit.
    """
    check_rows("hashing", student, teacher)
    check_labels("hashing", labels, student)
    student, teacher, labels = global_rows([student, teacher, labels], group)
    with full_precision(student, teacher) as (s, t):
        itself = torch.eye(len(s), dtype=torch.bool, device=s.device)
        alike = (labels[:, None] == labels[None, :]) & (labels >= 0)[:, None]
        across = _contrast(s, t, alike | itself, torch.ones_like(itself), margin)
        within = [_contrast(x, x, alike, ~itself, margin) for x in (s, t)]
        return across + intra_weight * (within[0] + within[1])


def _contrast(x: Tensor, y: Tensor, alike: Tensor, counted: Tensor, margin: float) -> Tensor:
    distance = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    pulled = _mean(distance.square(), alike & counted)
    return 0.5 * (pulled + _mean(pushed(distance, margin), ~alike & counted))


def pushed(distance: Tensor, margin: float) -> Tensor:
    """max(0, m - d)^2 of distances d of pairs that are not alike."""
    return (margin - distance).clamp(min=0).square()


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum().clamp(min=1)


class Hashing(Objective):
    """`hashing_loss` of the student's node and of the teacher's stored features, each behind a
    linear layer of its own and tanh.

    A code is the signs of what these layers give. Source: the paper's own maps have one or two
    layers a modality.
    """

    needs = frozenset({"student", "teacher_features", "labels"})

    def __init__(self, options: HashingOptions, facts: Facts) -> None:
        super().__init__()
        self.options = options
        self.student_code = nn.Linear(facts.student_dim, options.bits)
        self.teacher_code = nn.Linear(facts.teacher_features, options.bits)

    @classmethod
    def build(cls, options: HashingOptions, facts: Facts | None) -> Self:
        """Raises ValueError without facts."""
        return cls(options, required("hashing", facts))

    @classmethod
    def trained(cls, options: HashingOptions, weights: Mapping[str, Tensor]) -> Self:
        """With the weights of a training, those that `TrainedStudent.learned` gives.

        Raises RuntimeError, or KeyError, if they are no such weights.
        """
        widths = [weights[f"{side}_code.weight"].shape[1] for side in ("student", "teacher")]
        none = torch.empty(0, dtype=torch.int64)
        made = cls(options, Facts(widths[0], 0, none, teacher_features=widths[1]))
        made.load_state_dict(weights)
        return made.to(weights["student_code.weight"].device).eval()

    def student_bits(self, node: Tensor) -> Tensor:
        """bool [B, K]: the student's codes, of its nodes [B, D]."""
        bits: Tensor = self.student_code(node) > 0
        return bits

    def teacher_bits(self, features: Tensor) -> Tensor:
        """bool [B, K]: the teacher's codes, of features [B, F] that are standardised as the
        training's were (`TeacherHead.standardized`)."""
        bits: Tensor = self.teacher_code(features) > 0
        return bits

    def forward(self, pair: Pair) -> Tensor:
        """The loss of the batch of all workers."""
        options = self.options
        with full_precision(pair.student, pair.need("teacher_features")) as (student, teacher):
            return hashing_loss(
                self.student_code(student).tanh(),
                self.teacher_code(teacher).tanh(),
                pair.need("labels"),
                margin=options.margin,
                intra_weight=options.intra_weight,
                group=pair.group,
            )
