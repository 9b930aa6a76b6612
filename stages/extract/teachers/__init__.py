"""Frozen encoders: one module a library, one protocol for all.

A process that decodes needs the preprocessing alone: torch is imported with what uses it.
"""

import importlib
from typing import TYPE_CHECKING, cast

from egapipe.pipeline.config.teachers import TeacherConfig
from egapipe.pipeline.machine.lazy import lazy

if TYPE_CHECKING:
    from egapipe.stages.extract.teachers.base import (
        Known,
        Loading,
        Outputs,
        Teacher,
        check_distinct,
        probe,
    )
    from egapipe.stages.extract.teachers.preprocessing import Pixels, Preparation, Preprocessing

BACKENDS = (
    "ensemble",
    "imported",
    "onnx",
    "open_clip",
    "python",
    "run",
    "timm",
    "transformers",
)
"""Values of `teacher.backend`: each is the module here whose `load` takes its configuration."""


def load_teacher(config: TeacherConfig, loading: "Loading | None" = None) -> "Teacher":
    """Load the frozen encoder of a configuration on the CPU, in the precision asked for.

    loading: what is known of it, and where it is tried if nothing is. Raises TeacherError: not
    found, no safetensors weights, incomplete weights, no preprocessing configuration, or outputs
    that are not finite. Raises UsageError: the library of an optional extra is not installed.
    """
    # Only now: each module imports its library, and `transformers` alone takes a second.
    module = importlib.import_module(f"{__name__}.{config.backend}")
    return cast("Teacher", module.load(config) if loading is None else module.load(config, loading))


__all__ = [
    "BACKENDS",
    "Known",
    "Loading",
    "Outputs",
    "Pixels",
    "Preparation",
    "Preprocessing",
    "Teacher",
    "check_distinct",
    "load_teacher",
    "probe",
]

__getattr__ = lazy(
    __name__,
    {
        "Known": "base",
        "Loading": "base",
        "Outputs": "base",
        "Teacher": "base",
        "check_distinct": "base",
        "probe": "base",
        "Pixels": "preprocessing",
        "Preparation": "preprocessing",
        "Preprocessing": "preprocessing",
    },
)
