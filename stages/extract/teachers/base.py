"""What extraction asks of a teacher, whichever library it comes from."""

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from egapipe.pipeline.errors import TeacherError
from egapipe.stages.extract.teachers.preprocessing import Preparation

EMBEDDING = "embedding"
"""The output that students learn from."""
Outputs = dict[str, Tensor]
"""Name of an output -> float32 [B, *shape]."""

_PROBE_IMAGES = 2


class Teacher(Protocol):
    """A frozen encoder of images."""

    spec: dict[str, Any]
    """Plain JSON that identifies it in a manifest: backend, model, revision, pooling asked for and
    resolved, precision, class name, SHA-256 of its weights."""
    outputs: dict[str, tuple[int, ...]]
    """Name of each output -> its shape for one image, e.g. {"embedding": (384,)}."""

    @property
    def preprocessing(self) -> Preparation:
        """How images become its input."""
        ...

    def to(self, device: torch.device) -> None:
        """Move the weights to a device."""
        ...

    def forward(self, pixels: Tensor) -> Outputs:
        """Encode uint8 [B, *preprocessing.shape] into float32 [B, *shape] a name.

        The pixels are on the teacher's device. Normalises inside, keeps no graph, and runs in the
        precision that was asked for.
        """
        ...


def probe(teacher: Teacher) -> dict[str, tuple[int, ...]]:
    """Shapes of a teacher's outputs for one image, found by encoding noise.

    Raises TeacherError if an output is not finite, is the same for different images, or differs
    between two passes over the same ones: nothing could be resumed or reproduced with it.
    """
    rng = np.random.default_rng(0)
    shape = (_PROBE_IMAGES, *teacher.preprocessing.shape)
    noise = torch.from_numpy(rng.integers(0, 256, shape, np.uint8))
    first, second = (teacher.forward(noise) for _ in range(2))
    for name, output in first.items():
        _check_finite(teacher, name, output)
        if not torch.equal(output, second[name]):
            raise TeacherError(
                f"teacher {teacher.spec['model']} gives another {name} for the same image at every "
                "pass: it draws random numbers in its forward pass, use another encoder"
            )
    check_distinct(teacher, noise, {name: output.numpy() for name, output in first.items()})
    return {name: tuple(output.shape[1:]) for name, output in first.items()}


def check_distinct(teacher: Teacher, pixels: Tensor, outputs: dict[str, np.ndarray]) -> None:
    """Raise TeacherError if different images (uint8 [B, ...]) all have the same output."""
    for name, output in outputs.items():
        constant = (output == output[:1]).all()
        if constant and bool((pixels != pixels[:1]).any()):
            raise TeacherError(
                f"teacher {teacher.spec['model']} gives the same {name} for different images: "
                "check its weights and its preprocessor_config.json (scale, mean, std)"
            )


def _check_finite(teacher: Teacher, name: str, output: Tensor) -> None:
    bad = int((~torch.isfinite(output)).sum())
    if bad:
        raise TeacherError(
            f"teacher {teacher.spec['model']} gives non-finite outputs ({bad} of {output.numel()} "
            f"values of {name} for noise images in {teacher.spec['precision']}): check its "
            "weights, or set teacher.precision=float32 where it is lower"
        )
