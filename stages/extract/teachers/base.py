"""What extraction asks of a teacher, whichever library it comes from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
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

Damaged = Callable[[int, str], None]
"""Told the position in a batch of a view whose image turns out to be damaged, and why."""

CPU = torch.device("cpu")

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


@dataclass(frozen=True)
class Known:
    """What a manifest says of a teacher, so that a worker need not find it out again.

    spec, outputs: see `Teacher`.
    """

    spec: Mapping[str, Any]
    outputs: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Loading:
    """What is known of the teacher that is loaded, and where it is tried if nothing is."""

    known: Known | None = None
    device: torch.device = CPU
    """The teacher is on the CPU afterwards: whoever runs it may be another process."""


UNKNOWN = Loading()


def probe(teacher: Teacher, device: torch.device = CPU) -> dict[str, tuple[int, ...]]:
    """Shapes of a teacher's outputs for one image, found by encoding noise on the device that it is
    on.

    Raises TeacherError if an output is not finite, is the same for different images, or differs
    between two passes over the same ones: nothing could be resumed or reproduced with it.
    """
    noise = torch.from_numpy(teacher.preprocessing.noise(_PROBE_IMAGES))
    first, second = (_on_host(teacher.forward(noise.to(device))) for _ in range(2))
    for name, output in first.items():
        _check_finite(teacher, name, output)
        if not torch.equal(output, second[name]):
            raise TeacherError(
                f"teacher {teacher.spec['model']} gives another {name} for the same image at every "
                "pass: it draws random numbers in its forward pass, use another encoder"
            )
    check_distinct(teacher, noise, {name: output.numpy() for name, output in first.items()})
    return {name: tuple(output.shape[1:]) for name, output in first.items()}


def _on_host(outputs: Outputs) -> Outputs:
    return {name: output.cpu() for name, output in outputs.items()}


def ignored(position: int, reason: str) -> None:
    """Nobody is told."""


def received(
    teacher: Teacher, pixels: Tensor, device: torch.device, damaged: Damaged = ignored
) -> Tensor:
    """A batch of host memory, uint8 [B, *preprocessing.shape], on a device for `forward`.

    A teacher with something left to do then has a method `receive` for it, of these arguments.
    """
    receive = getattr(teacher, "receive", None)
    if receive is None:
        return pixels.to(device, non_blocking=True)
    there: Tensor = receive(pixels, device, damaged)
    return there


def check_distinct(teacher: Teacher, pixels: Tensor, outputs: dict[str, np.ndarray]) -> None:
    """Raise TeacherError if different images (uint8 [B, ...]) all have the same output."""
    for name, output in outputs.items():
        constant = (output == output[:1]).all()
        if not constant:
            continue
        # Equal images may lie in different bytes.
        seen = received(teacher, pixels, CPU)
        if bool((seen != seen[:1]).any()):
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
