"""A student as a function of images, wherever it was left: run folder, export or ONNX file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.results.runs import RunFolder, open_run
from egapipe.stages.distill import TrainedStudent, load_student
from egapipe.stages.distill.model.spec import StudentSpec
from egapipe.stages.distill.setup import pick_device
from egapipe.stages.export import load_exported
from egapipe.stages.export.folder import CONFIG, WEIGHTS
from egapipe.stages.export.module import Inference
from egapipe.stages.export.programs import open_onnx

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Predictor:
    """spec: what the student is made of. run: uint8 images [B, 3, H, W] of `spec.size` to logits
    [B, C], nodes [B, D] and features [B, F], float32."""

    spec: StudentSpec
    run: Callable[[Tensor], tuple[Floats, ...]]

    @classmethod
    def of(cls, student: TrainedStudent) -> Self:
        """That of a loaded student, on its device."""
        return cls(student.spec, _torch(Inference(student.student), student.device))

    def class_name(self, number: int) -> str:
        """The name of a class, or its number where names are not known."""
        names = self.spec.class_names
        return names[number] if names is not None and number < len(names) else str(number)


def load_predictor(
    model: str | Path,
    device: str = "auto",
    checkpoint: str = "last",
    *,
    trust_remote_code: bool = False,
) -> Predictor:
    """The student of a run folder, of a folder of `egapipe export`, or of its ONNX file.

    device: `auto`, `cpu` or `cuda`; ONNX files run on the CPU. checkpoint: of a run folder, `last`,
    `best` or `ema`; an export has the weights that it was made of. trust_remote_code: import the
    `module:callable` that a folder names, which runs it. Raises UsageError if it is none of them,
    does not load or has no such checkpoint.
    """
    path, run = _found(model)
    if checkpoint != "last" and not (path / "config.yaml").is_file():
        raise UsageError(
            f"{path} is no run folder, so there is no checkpoint to choose: leave --checkpoint "
            f"{checkpoint}, or name the run"
        )
    if path.suffix == ".onnx":
        if device == "cuda":
            raise UsageError("ONNX files run on the CPU here: leave --device, or name the folder")
        program, spec = open_onnx(path)
        return Predictor(spec, program)
    if (path / CONFIG).is_file() and (path / WEIGHTS).is_file():
        student, spec = load_exported(path, trust_remote_code=trust_remote_code)
        return Predictor(spec, _torch(Inference(student), pick_device(device)))
    if not (path / "config.yaml").is_file():
        raise UsageError(
            f"{path} is no student: name a run folder, a folder of `egapipe export` or its .onnx"
        )
    trained = load_student(run, checkpoint, device, trust_remote_code=trust_remote_code)
    return Predictor.of(trained)


def _found(model: str | Path) -> tuple[Path, RunFolder]:
    """The model's place on this machine, and the folder that it is if it is one.

    Of a folder elsewhere comes what says which kind it is, of an export all of it.
    """
    folder = open_run(model)
    if folder.url is None:
        return folder.path, folder
    if folder.path.suffix == ".onnx":
        # Large weights lie beside it, in files that are called after it.
        beside = folder.beside("..")
        beside.fetch()
        return beside.path / folder.path.name, folder
    folder.fetch("config.yaml", CONFIG, WEIGHTS)
    return folder.path, folder


def _torch(module: Inference, device: torch.device) -> Callable[[Tensor], tuple[Floats, ...]]:
    module = module.to(device).eval()

    def run(images: Tensor) -> tuple[Floats, ...]:
        with torch.no_grad():
            return tuple(output.float().cpu().numpy() for output in module(images.to(device)))

    return run
