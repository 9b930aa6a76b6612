"""A student as a function of images, wherever it was left: run folder, export or file of one."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.machine.cores import available_cpus
from egapipe.pipeline.results.runs import RunFolder, open_run
from egapipe.stages.distill import TrainedStudent, load_student
from egapipe.stages.distill.model.spec import StudentSpec
from egapipe.stages.distill.setup import pick_device
from egapipe.stages.export import load_exported
from egapipe.stages.export.folder import CONFIG, WEIGHTS
from egapipe.stages.export.module import Inference
from egapipe.stages.export.onnx_files import open_onnx
from egapipe.stages.export.programs import open_program
from egapipe.stages.predict.pictures import Picture, view_of

Floats = npt.NDArray[np.float32]
BATCH = 64
_FILES = (".onnx", ".pt2")


@dataclass(frozen=True)
class Prediction:
    """One image. path: its file; of a picture in memory its number. classes: (name, probability),
    the most probable first. nodes: [D], the embedding that was aligned with the teacher's.
    features: [F] of the backbone. error: why there is nothing of these."""

    path: Path
    classes: list[tuple[str, float]]
    nodes: Floats | None = None
    features: Floats | None = None
    error: str = ""


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

    def predict(self, pictures: Iterable[Picture], *, top: int = 5) -> list[Prediction]:
        """Classes and embeddings of pictures, in order: files, PIL images, arrays, see `Picture`.

        top: classes a picture. One that cannot be read is a Prediction with an error.
        """
        return list(self.predict_each(pictures, top))

    def predict_each(self, pictures: Iterable[Picture], top: int) -> Iterator[Prediction]:
        """The same, one after the other, without more than a batch in memory.

        Raises UsageError unless `top` is at least 1.
        """
        if top < 1:
            raise UsageError(f"top is {top}: ask for at least one class")
        return self._batch_by_batch(enumerate(pictures), top)

    def _batch_by_batch(
        self, pictures: Iterator[tuple[int, Picture]], top: int
    ) -> Iterator[Prediction]:
        while part := list(islice(pictures, BATCH)):
            seen = [view_of(picture, self.spec.frame) for _, picture in part]
            pixels = [view for view in seen if isinstance(view, Tensor)]
            outputs = iter(self._outputs(torch.stack(pixels), top) if pixels else ())
            for (number, picture), view in zip(part, seen, strict=True):
                path = Path(picture) if isinstance(picture, str | Path) else Path(str(number))
                if isinstance(view, str):
                    yield Prediction(path, [], error=view)
                else:
                    yield Prediction(path, *next(outputs))

    def _outputs(
        self, pixels: Tensor, top: int
    ) -> Iterator[tuple[list[tuple[str, float]], Floats, Floats]]:
        logits, nodes, features = self.run(pixels)
        probabilities = torch.from_numpy(logits).softmax(dim=1).numpy()
        for row, probability in enumerate(probabilities):
            best = np.argsort(-probability, kind="stable")[:top]
            classes = [(self.class_name(int(c)), float(probability[c])) for c in best]
            yield classes, nodes[row], features[row]


def load_predictor(
    model: str | Path,
    device: str = "auto",
    checkpoint: str = "last",
    *,
    trust_remote_code: bool = False,
) -> Predictor:
    """The student of a run folder, of a folder of `egapipe export`, or of its ONNX or torch.export
    file.

    device: `auto`, `cpu` or `cuda`; such files run on the CPU, on as many threads as there are
    cores. checkpoint: of a run folder, `last`, `best` or `ema`; an export has the weights that it
    was made of. trust_remote_code: import the `module:callable` that a folder names, or read the
    pickles of a torch.export file: both may run anything. Raises UsageError if it is none of them,
    does not load or has no such checkpoint.
    """
    path, run = _found(model)
    if checkpoint != "last" and not (path / "config.yaml").is_file():
        raise UsageError(
            f"{path} is no run folder, so there is no checkpoint to choose: leave --checkpoint "
            f"{checkpoint}, or name the run"
        )
    if path.suffix in _FILES:
        return _of_file(path, device, trusted=trust_remote_code)
    if (path / CONFIG).is_file() and (path / WEIGHTS).is_file():
        student, spec = load_exported(path, trust_remote_code=trust_remote_code)
        return Predictor(spec, _torch(Inference(student), pick_device(device)))
    if not (path / "config.yaml").is_file():
        raise UsageError(
            f"{path} is no student: name a run folder, a folder of `egapipe export`, its .onnx or "
            "its .pt2"
        )
    trained = load_student(run, checkpoint, device, trust_remote_code=trust_remote_code)
    return Predictor.of(trained)


def _of_file(path: Path, device: str, *, trusted: bool) -> Predictor:
    if device == "cuda":
        raise UsageError(
            f"{path.suffix} files run on the CPU here: leave --device, or name the folder"
        )
    if path.suffix == ".pt2":
        run, spec = open_program(path, trusted=trusted)
    else:
        run, spec = open_onnx(path, threads=available_cpus())
    return Predictor(spec, run)


def _found(model: str | Path) -> tuple[Path, RunFolder]:
    """The model's place on this machine, and the folder that it is if it is one.

    Of a folder elsewhere comes what says which kind it is, of an export all of it.
    """
    folder = open_run(model)
    if folder.url is None:
        return folder.path, folder
    if folder.path.suffix in _FILES:
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
