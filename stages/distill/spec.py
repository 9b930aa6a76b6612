"""What a student is made of: enough to build it again without data set, teacher or store."""

import torch

from egapipe.pipeline.config.base import Positive, Section
from egapipe.pipeline.config.data import Normalize
from egapipe.pipeline.config.distill import StudentConfig
from egapipe.stages.distill.model import Head, Student
from egapipe.stages.distill.students import build_student

MODEL = "model.json"


class StudentSpec(Section):
    """The content of a run's model.json."""

    student: StudentConfig
    """The backbone."""
    features: Positive
    """Width F of the backbone's features."""
    dim: Positive | None
    """Width of the node layer."""
    classes: Positive
    """Outputs of the classifier."""
    class_names: list[str] | None
    """Their names, where known."""
    size: tuple[int, int]
    """(height, width) of the input."""
    normalize: Normalize
    """Input normalisation, part of the module."""

    def build(self, backbone: torch.nn.Module | None = None) -> Student:
        """The student with fresh weights, around a backbone if there is one already."""
        if backbone is None:
            backbone = build_student(self.student.name, self.student.args)
        return Student(backbone, Head(self.features, self.dim, self.classes), self.normalize)
