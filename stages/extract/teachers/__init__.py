"""Frozen encoders: one module a library, one protocol for all."""

from collections.abc import Callable
from typing import Any

from egapipe.pipeline.config.teachers import TeacherConfig
from egapipe.stages.extract.teachers import (
    ensemble,
    imported,
    onnx,
    open_clip,
    python,
    run,
    timm,
    transformers,
)
from egapipe.stages.extract.teachers.base import Outputs, Teacher, check_distinct, probe
from egapipe.stages.extract.teachers.preprocessing import Pixels, Preparation, Preprocessing

BACKENDS: dict[str, Callable[[Any], Teacher]] = {
    "ensemble": lambda config: ensemble.load(config, load_teacher),
    "imported": imported.load,
    "onnx": onnx.load,
    "open_clip": open_clip.load,
    "python": python.load,
    "run": run.load,
    "timm": timm.load,
    "transformers": transformers.load,
}
"""Value of `teacher.backend` -> what loads it."""


def load_teacher(config: TeacherConfig) -> Teacher:
    """Load the frozen encoder of a configuration on the CPU.

    Raises TeacherError: not found, no safetensors weights, incomplete weights, no preprocessing
    configuration, or outputs that are not finite. Raises UsageError: the library of an optional
    extra is not installed.
    """
    return BACKENDS[config.backend](config)


__all__ = [
    "BACKENDS",
    "Outputs",
    "Pixels",
    "Preparation",
    "Preprocessing",
    "Teacher",
    "check_distinct",
    "load_teacher",
    "probe",
]
