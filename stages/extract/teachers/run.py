"""A distilled student as the next teacher."""

from typing import Any

from torch import nn

from egapipe.pipeline.config.teachers import RunTeacher as Settings
from egapipe.pipeline.errors import TeacherError
from egapipe.pipeline.locations.urls import path_of
from egapipe.pipeline.results.durable import durable
from egapipe.stages.distill import TrainedStudent, load_student
from egapipe.stages.extract.teachers.array_input import ArrayInput
from egapipe.stages.extract.teachers.base import UNKNOWN, Loading
from egapipe.stages.extract.teachers.network import NetworkTeacher
from egapipe.stages.extract.teachers.outputs import asked_outputs
from egapipe.stages.extract.teachers.pooled import Pooled, Tapped
from egapipe.stages.extract.teachers.precision import narrow
from egapipe.stages.extract.teachers.preprocessing import Preprocessing
from egapipe.stages.extract.teachers.weights import weights_sha256


def load(settings: Settings, loading: Loading = UNKNOWN) -> NetworkTeacher:
    """Load the student of a run folder, see `load_teacher`.

    Raises UsageError if the folder is no run, has no such checkpoint, or the weights do not fit.
    """
    trained = load_student(
        path_of(settings.model),
        settings.checkpoint,
        "cpu",
        trust_remote_code=settings.trust_remote_code,
    )
    network = _network(trained, settings.output)
    spec: dict[str, Any] = {
        **durable(settings),
        "class": type(trained.student.backbone).__name__,
        "sha256": weights_sha256(network),
    }
    narrow(network, settings.precision)
    others = asked_outputs(settings)
    try:
        pooled = Pooled(Tapped(network, others), "auto", 0, others)
        return NetworkTeacher(spec, pooled, _preprocessing(trained), loading)
    except ValueError as error:
        raise TeacherError(f"teacher {settings.model} cannot be used: {error}") from error


def _network(trained: TrainedStudent, output: str) -> nn.Module:
    """Normalised images [B, 3, H, W] to features [B, F] or nodes [B, D]."""
    student = trained.student
    node = [student.head.node] if output == "nodes" else []
    return nn.Sequential(student.backbone, *node).eval().requires_grad_(False)


def _preprocessing(trained: TrainedStudent) -> Preprocessing | ArrayInput:
    """As distillation shows clean images to a student: whole, at its size; arrays as they are."""
    if trained.spec.array is not None:
        return ArrayInput(trained.spec.array)
    normalize = trained.spec.levels
    return Preprocessing(
        resize=trained.spec.frame.size,
        crop=None,
        resample="bilinear",
        rescale=1 / 255,
        mean=normalize.mean,
        std=normalize.std,
    )
