"""A trained student, loaded from its run folder without teacher or store."""

from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError

from egapipe.pipeline.config import Config
from egapipe.pipeline.config.explain import explain
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.runs import RunFolder
from egapipe.stages.distill.checkpoint import checkpoint_folder, load_student_weights
from egapipe.stages.distill.evaluation import Accuracy
from egapipe.stages.distill.model import Student
from egapipe.stages.distill.setup import evaluation_logits, open_test, pick_device
from egapipe.stages.distill.spec import MODEL, StudentSpec
from egapipe.stages.distill.world import World


@dataclass(frozen=True)
class TrainedStudent:
    """A student in evaluation mode, what it is made of, and the configuration it came from."""

    student: Student
    spec: StudentSpec
    config: Config
    device: torch.device

    def accuracy(self) -> Accuracy:
        """Top-1 and top-5 on the configuration's test images. Raises UsageError without any."""
        world = World.alone(self.device)
        test = open_test(self.config, self.spec.classes, self.spec.size, world)
        if test is None:
            raise UsageError(f"{self.config.name} has no dataset.test to evaluate on")
        return test.accuracy(evaluation_logits(self.student, self.config.distill), world)


def load_student(
    run: RunFolder | str | Path, which: str = "last", device: str = "auto"
) -> TrainedStudent:
    """The student of a run's `last` or `best` checkpoint.

    Raises UsageError if the folder is no run, has no such checkpoint, or the weights do not fit.
    """
    run = run if isinstance(run, RunFolder) else RunFolder(Path(run))
    config = run.config()
    folder = checkpoint_folder(run.checkpoints, which)
    try:
        spec = StudentSpec.model_validate(run.read_json(MODEL))
    except ValidationError as error:
        raise UsageError(f"{run.path / MODEL}: {explain(error, StudentSpec)}") from None
    student = spec.build()
    load_student_weights(student, folder)
    target = pick_device(device)
    return TrainedStudent(student.to(target).eval(), spec, config, target)
