"""What a step makes of its rows: of every student and teacher, and in losses."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from torch import Tensor

from egapipe.stages.distill.model.student import Seen, Student
from egapipe.stages.distill.objectives import WeightedSum

OWN = "student"
AVERAGE = "average"


class Forward(NamedTuple):
    """What all make of B rows. students: the student, called `student`, and its peers by their
    names. node [B, D] and logits [B, C] of the teacher's head. average: of the student's moving
    average, where that teaches."""

    students: Mapping[str, Seen]
    teacher_node: Tensor
    teacher_logits: Tensor
    average: Seen | None = None

    def named(self) -> dict[str, Tensor]:
        """All tensors by name, such as `student.logits`."""
        found = {
            f"{name}.{key}": v
            for name, seen in self.students.items()
            for key, v in seen.named().items()
        }
        found |= {"teacher.node": self.teacher_node, "teacher.logits": self.teacher_logits}
        average = {} if self.average is None else self.average.named()
        return found | {f"{AVERAGE}.{key}": value for key, value in average.items()}

    @classmethod
    def of(cls, named: Mapping[str, Tensor]) -> Self:
        """Of what `named` gives."""
        parts: dict[str, dict[str, Tensor]] = {}
        for name, value in named.items():
            owner, _, key = name.partition(".")
            parts.setdefault(owner, {})[key] = value
        teacher, average = parts.pop("teacher"), parts.pop(AVERAGE, None)
        return cls(
            {name: Seen.of(own) for name, own in parts.items()},
            teacher["node"],
            teacher["logits"],
            None if average is None else Seen.of(average),
        )


@dataclass(frozen=True)
class Losses:
    """total: what is differentiated. parts: detached scalars by name, those of a peer behind
    `peers.` and its name. correct, labelled: of the student's predictions on this worker's labelled
    rows."""

    total: Tensor
    parts: Mapping[str, Tensor]
    correct: Tensor
    labelled: Tensor


class Learning(NamedTuple):
    """A student, and the objectives that it learns by, with what they learn and remember."""

    student: Student
    objective: WeightedSum


@dataclass(frozen=True)
class Live:
    """Teachers beside the store: students that learn in the same steps, and the student's average.

    peers: by name, each with objectives of its own. average: a copy of the student that has the
    moving average of its weights; no part of the model, as it learns nothing. pairs: of features
    that objectives compare with a live teacher's, tap of the student and of the teacher by name.
    """

    peers: Mapping[str, Learning] = field(default_factory=dict)
    average: Student | None = None
    pairs: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def taps(self) -> list[str]:
        """What is tapped of every student."""
        return [tap for pair in self.pairs.values() for tap in pair]
