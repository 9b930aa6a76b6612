"""Students as they are built: their widths, and what each of their taps gives of an image."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from egapipe.pipeline.config.distill import DistillConfig, StudentConfig
from egapipe.stages.distill.model.spec import StudentSpec
from egapipe.stages.distill.model.student import Student
from egapipe.stages.distill.objectives.base import Shape
from egapipe.stages.distill.students import build_student, feature_width, tap_shapes


@dataclass(frozen=True)
class Measured:
    """A student, and what each tap gives of one image."""

    spec: StudentSpec
    student: Student
    taps: Mapping[str, Shape]

    @property
    def dim(self) -> int:
        """Width of its node."""
        return self.spec.dim or self.spec.features


def measured(distill: DistillConfig, spec: StudentSpec, backbone: nn.Module) -> Measured:
    """A student around a backbone, whose taps are measured by a pass over black images."""
    taps = [pair.student for pair in distill.pairs.values()]
    taps += [tap for pair in distill.live_pairs.values() for tap in pair]
    names = list(dict.fromkeys(taps))
    shapes = tap_shapes(backbone, names, spec.array or spec.frame.size) if names else {}
    return Measured(spec, spec.build(backbone), shapes)


def build_peer(distill: DistillConfig, spec: StudentSpec, chosen: StudentConfig) -> Measured:
    """Another student of the same images and classes. spec: of the student."""
    backbone = build_student(chosen.name, chosen.args)
    width = feature_width(backbone, spec.array or spec.frame.size)
    return measured(
        distill, spec.model_copy(update={"student": chosen, "features": width}), backbone
    )


def live_average(student: Student) -> Student:
    """A copy of a student that teaches with the moving average of its weights.

    As a student in training it normalises over the batch; its running statistics are averages of
    the student's, which its own passes leave alone.
    """
    average = deepcopy(student)
    for part in average.modules():
        if isinstance(part, _BatchNorm):
            part.momentum = 0.0
    # Its frozen parts are in evaluation mode from here on.
    return average.train()
