"""A trained student, loaded from its run folder without teacher or store."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from egapipe.pipeline.config import Config
from egapipe.pipeline.config.data import ArrayType
from egapipe.pipeline.datasets import Dataset, open_dataset
from egapipe.pipeline.datasets.classes import by_name, by_number
from egapipe.pipeline.disk.paths import use_cache
from egapipe.pipeline.errors import UsageError, one_line
from egapipe.pipeline.results.runs import RunFolder, open_run
from egapipe.pipeline.views import key_hashes
from egapipe.stages.distill.data.inputs.images import Frame, readable
from egapipe.stages.distill.data.loader import run_ahead
from egapipe.stages.distill.data.sources import open_images
from egapipe.stages.distill.model.precision import PRECISIONS, autocast
from egapipe.stages.distill.model.spec import MODEL, StudentSpec, shapes_in
from egapipe.stages.distill.model.standardizer import Standardizer
from egapipe.stages.distill.model.student import Student, TeacherHead
from egapipe.stages.distill.setup import evaluation_logits, open_test, pick_device
from egapipe.stages.distill.training.checkpoint import (
    AVERAGE,
    STUDENT,
    checkpoint_folder,
    load_student_weights,
)
from egapipe.stages.distill.training.evaluation import Accuracy
from egapipe.stages.distill.workers.world import World

Ints = npt.NDArray[np.int64]
TEACHER_HEAD = "teacher_head."
OBJECTIVES = "objective.objectives."
_STANDARDIZER = "standardizer."
# Of a batch: 512 images of 64 x 64, 41 of 224 x 224. Activations are many times as large.
_BATCH_PIXELS = 512 * 64 * 64
_BATCH = 512


@dataclass(frozen=True)
class Outputs:
    """What a student makes of B images, float32 on its device.

    rows: int64 [B] of the data set. features: [B, F] of the backbone. nodes: [B, D] of the node
    layer. logits: [B, C].
    """

    rows: Ints
    features: Tensor
    nodes: Tensor
    logits: Tensor


@dataclass(frozen=True)
class TrainedStudent:
    """A student in evaluation mode, what it is made of, and where it came from.

    checkpoint: the folder its weights were read from.
    """

    student: Student
    spec: StudentSpec
    config: Config
    device: torch.device
    checkpoint: Path

    def accuracy(self) -> Accuracy:
        """Top-1 and top-5 on the configuration's test images. Raises UsageError without any."""
        if self.config.dataset.test is None:
            raise UsageError(f"config {self.config.name} has no dataset.test to measure with")
        dataset = self.numbered(open_dataset(self.config.dataset.test))
        world = World.alone(self.device)
        test = open_test(self.config, dataset, self.spec.classes, self.spec.seen, world)
        return test.accuracy(evaluation_logits(self.student, self.config.distill), world)

    def numbered(self, dataset: Dataset) -> Dataset:
        """A data set with the class numbers that the student was trained with.

        Raises UsageError, both lists of classes named, for images of a class it does not know.
        """
        if self.spec.class_names is None:
            return by_number(dataset, self.spec.classes)
        return by_name(dataset, list(self.spec.class_names), "the student")

    def outputs(self, dataset: Dataset, rows: Ints) -> Iterator[Outputs]:
        """The student's outputs for clean images, batch by batch, in the precision of training.

        rows: int64 [N] of the data set, in any order. Rows whose image cannot be read are left
        out. Raises UsageError if the images are not of one size and the student's is not set.
        """
        hashes, seen = key_hashes(dataset.keys), self.spec.seen
        images = open_images(self.config, dataset, hashes, seen, World.alone(self.device))
        length = _batch_length(seen)
        chunks = (rows[i : i + length] for i in range(0, len(rows), length))
        jobs = (lambda chunk=chunk: readable(images, chunk) for chunk in chunks)
        for chunk, pixels in run_ahead(jobs, images.threads, self.device):
            if len(chunk):
                yield Outputs(chunk, *self._forward(pixels))

    def teacher_head(self) -> TeacherHead | None:
        """The teacher's node layer and classifier as trained beside this student, on its device.

        None if the checkpoint has none. Raises UsageError if it is damaged.
        """
        with self._explained():
            own = self._heads(TEACHER_HEAD)
            if not own:
                return None
            first = own.get("node.weight", own["classifier.weight"])
            standards = {
                name.removeprefix(_STANDARDIZER): value
                for name, value in own.items()
                if name.startswith(_STANDARDIZER)
            }
            standardizer = Standardizer.from_state(standards) if standards else None
            head = TeacherHead(first.shape[1], self.spec.dim, self.spec.classes, standardizer)
            head.load_state_dict(own)
        return head.to(self.device).eval()

    def learned(self, objective: str) -> dict[str, Tensor]:
        """What an objective of the configuration learned and remembers beside this student, by
        name, on its device.

        Empty for one that learns nothing, or is not there. Raises UsageError if the checkpoint is
        damaged.
        """
        with self._explained():
            own = self._heads(f"{OBJECTIVES}{objective}.")
            return {name: value.to(self.device) for name, value in own.items()}

    def _heads(self, prefix: str) -> dict[str, Tensor]:
        """What lies around the backbone and has a name that begins so, without it."""
        weights = load_file(self.checkpoint / "heads.safetensors")
        return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (SafetensorError, OSError, RuntimeError, KeyError) as error:
            raise UsageError(
                f"checkpoint {self.checkpoint} does not load: {one_line(error)}"
            ) from None

    @torch.no_grad()
    def _forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with autocast(self.device, PRECISIONS[self.config.distill.precision]):
            features = self.student.features(pixels)
            nodes, logits = cast(tuple[Tensor, Tensor], self.student.head(features))
        return features.float(), nodes.float(), logits.float()


def load_student(
    run: RunFolder | str | Path,
    which: str = "last",
    device: str = "auto",
    *,
    trust_remote_code: bool = False,
) -> TrainedStudent:
    """The student of a run's `last` or `best` checkpoint, or the averaged one of the last (`ema`).

    trust_remote_code: import the `module:callable` that the folder names, which runs it; without it
    only registered students and those of timm and torchvision are built. Raises UsageError if the
    folder is no run, has no such checkpoint, or the weights do not fit.
    """
    run = open_run(run)
    config = run.config()
    use_cache(config.store.cache_dir)
    averaged = which == AVERAGE
    folder = checkpoint_folder(run, "last" if averaged else which)
    spec = StudentSpec.read(run.read_json(MODEL), f"{run.where}/{MODEL}")
    shapes = _shapes(folder, averaged=averaged)
    student = spec.build_for(shapes, f"checkpoint {folder}", trust_remote_code=trust_remote_code)
    load_student_weights(student, folder, averaged=averaged)
    target = pick_device(device)
    return TrainedStudent(student.to(target).eval(), spec, config, target, folder)


def _shapes(folder: Path, *, averaged: bool) -> dict[str, tuple[int, ...]]:
    """Of the student's weights in a checkpoint; none of a moving average that is not there."""
    average = folder / f"{AVERAGE}.safetensors"
    if averaged and average.is_file():
        return shapes_in(average)
    heads = shapes_in(folder / "heads.safetensors")
    own = {k.removeprefix(STUDENT): shape for k, shape in heads.items() if k.startswith(STUDENT)}
    return {**shapes_in(folder / "student.safetensors", "backbone."), **own}


def _batch_length(seen: Frame | ArrayType) -> int:
    numbers = math.prod(seen.size if isinstance(seen, Frame) else seen.shape)
    return max(1, min(_BATCH, _BATCH_PIXELS // numbers))
