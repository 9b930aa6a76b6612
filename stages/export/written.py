"""What a format is given, and what it leaves behind."""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from egapipe.pipeline.errors import EgapipeError
from egapipe.stages.distill.model.spec import StudentSpec
from egapipe.stages.export.module import BATCH, INPUT, OUTPUTS, Inference

Arrays = tuple[np.ndarray, ...]
Run = Callable[[Tensor], Arrays]
"""uint8 images [B, 3, H, W] to arrays, one for each output."""

_BATCH = torch.export.Dim(BATCH, min=1)


@dataclass(frozen=True)
class Order:
    """What is to be written: a student in evaluation mode on the CPU and what it is made of; the
    folder, which exists; opset: of ONNX, None for torch's own; calibration: real images, uint8
    [N, 3, H, W], that tell how far activations reach."""

    module: Inference
    spec: StudentSpec
    folder: Path
    calibration: Tensor
    opset: int | None = None

    @cached_property
    def program(self) -> torch.export.ExportedProgram:
        """The student's graph for any batch size. Raises EgapipeError if it cannot be traced."""
        example = torch.zeros(2, 3, *self.spec.frame.size, dtype=torch.uint8)
        try:
            with quiet(), torch.no_grad():
                shapes = {INPUT: {0: _BATCH}}
                return torch.export.export(self.module, (example,), dynamic_shapes=shapes)
        except Exception as error:  # whatever a network of the user's own does to the tracer
            lines = [line for line in str(error).splitlines() if line.strip()]
            raise EgapipeError(
                f"student {self.spec.student.name} cannot be traced by torch.export "
                f"({type(error).__name__}: {lines[0][:300] if lines else ''}): its forward pass "
                "must not branch on values; --format safetensors still works"
            ) from error


@dataclass(frozen=True)
class Written:
    """A file, by its path in the folder, and what it gives when it is read back.

    outputs: names of what `run` gives. exact: whether it must give what the student gives; else it
    is of a lower precision, and how far off it is is measured.
    """

    file: str
    run: Run
    outputs: tuple[str, ...] = OUTPUTS
    exact: bool = True


def arrays(module: Any) -> Run:
    """A module as a function to arrays, one for each tensor that it gives."""

    def run(images: Tensor) -> Arrays:
        with torch.no_grad():
            return tuple(output.numpy() for output in module(images))

    return run


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The exporters' progress, notes and warnings are about their own insides."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", None)]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
