"""From a configuration to everything a training needs, checked before anything is written."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from egapipe.pipeline.config import Config
from egapipe.pipeline.config.data import ArrayType, Normalize
from egapipe.pipeline.config.distill import DistillConfig
from egapipe.pipeline.datasets import Dataset, aligned, open_dataset
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.store import Features, FeatureStore
from egapipe.pipeline.views import key_hashes
from egapipe.stages.distill.data.batches import Batches, LoadedBatches
from egapipe.stages.distill.data.inputs.arrays import ResidentArrays
from egapipe.stages.distill.data.inputs.images import Frame, ResidentImages
from egapipe.stages.distill.data.joint import JointImages
from egapipe.stages.distill.data.loader import Loader
from egapipe.stages.distill.data.resident import ResidentBatches, resident_bytes
from egapipe.stages.distill.data.rows.links import check_one_file
from egapipe.stages.distill.data.rows.order import UNLABELLED
from egapipe.stages.distill.data.sources import (
    Sources,
    make_loader,
    open_features,
    open_images,
    open_sources,
    student_frame,
)
from egapipe.stages.distill.model.building import build_model
from egapipe.stages.distill.model.distillation import Distillation
from egapipe.stages.distill.model.initial import load_initial
from egapipe.stages.distill.model.precision import PRECISIONS, autocast
from egapipe.stages.distill.model.spec import StudentSpec
from egapipe.stages.distill.model.student import Student
from egapipe.stages.distill.students import build_student, feature_width
from egapipe.stages.distill.training.evaluation import Evaluation
from egapipe.stages.distill.training.optimizers import check_optimizers
from egapipe.stages.distill.training.schedule import check_milestones
from egapipe.stages.distill.workers.together import agreed
from egapipe.stages.distill.workers.world import World


@dataclass(frozen=True)
class Job:
    """One training, ready to run on one worker."""

    config: Config
    spec: StudentSpec
    model: Distillation
    loader: Loader
    test: Evaluation | None
    validation: Evaluation | None
    """Where there is one, choices are made on it."""
    teacher_test: tuple[Features, npt.NDArray[np.int64]] | None
    """Test features and labels, where the test images were extracted too."""
    world: World
    store: FeatureStore
    sources: Sources
    test_images: Dataset | None = None
    """The data set of `test`."""

    @property
    def test_store(self) -> FeatureStore | None:
        """The store of the test images, where they were extracted too."""
        there = self.teacher_test is not None
        return FeatureStore.open(self.config.store_url("test")) if there else None


def make_batches(job: Job) -> Batches:
    """Batches from the device if all workers' images lie there and all else fits, else from the
    loader. All workers call it together.

    On a CPU of one source: several would have to be copied behind each other.
    """
    loader, sources, world = job.loader, job.sources, job.world
    images = _resident_images(job)
    # A worker whose device is fuller than the others' decides for all: both ways have messages of
    # their own.
    able = world.total(torch.full((), int(images is not None), device=world.device))
    if images is None or int(able) < world.size:
        return LoadedBatches(loader)
    make = partial(ResidentBatches, loader, images, sources.features, sources.outputs)
    return agreed(world, make)


def _resident_images(job: Job) -> Sequence[ResidentImages | ResidentArrays] | None:
    """The images, or arrays, of all sources, if this worker's device can hold them and their
    features."""
    loader, images = job.loader, job.loader.images
    parts = images.parts if isinstance(images, JointImages) else [images]
    pixels = [part for part in parts if isinstance(part, ResidentImages)]
    arrays = [part for part in parts if isinstance(part, ResidentArrays)]
    resident = arrays or pixels
    # Arrays are of one shape, or were refused.
    one_shape = len({tuple(part.source) for part in pixels}) <= 1
    if len(resident) < len(parts) or not one_shape:
        return None
    if job.world.device.type != "cuda":
        return resident if len(parts) == 1 else None
    others = job.sources.outputs.values()
    outputs = [*job.sources.features, *(part for parts in others for part in parts)]
    fits = resident_bytes(resident, loader, outputs) <= _free_bytes(job.world.device)
    return resident if fits else None


def _free_bytes(device: torch.device) -> int:
    """Of a GPU's memory, what may be filled: activations need the rest."""
    free, _ = torch.cuda.mem_get_info(device)
    return free // 2


def pick_device(name: str) -> torch.device:
    """`auto`, `cpu` or `cuda` to a device. Raises UsageError for a GPU that is not there."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("device is cuda, but torch sees no GPU here: use device cpu or auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    # With its number: threads of the loader start at the first device, whatever is current here.
    return torch.device(name, torch.cuda.current_device()) if name == "cuda" else torch.device(name)


def check_compile(distill: DistillConfig, device: torch.device) -> None:
    """Raise UsageError for CUDA graphs without a GPU."""
    if distill.compile == "reduce-overhead" and device.type != "cuda":
        raise UsageError(
            "distill.compile is reduce-overhead, whose CUDA graphs need a GPU, and the student "
            "trains on the CPU: set distill.compile to default or null"
        )


def prepare(config: Config, world: World) -> Job:
    """Open and check data, store, student and objective.

    Raises UsageError or StoreError with the one thing to change.
    """
    distill = config.distill
    if world.trains(distill.workers):
        check_compile(distill, world.device)
    check_milestones(distill)
    if distill.threads is not None:
        torch.set_num_threads(distill.threads)
    sources = open_sources(config)
    check_one_file(sources.links, world)
    dataset, labels = sources.datasets[0], sources.labels
    frame = student_frame(config, dataset, sources.stores[0].manifest.plan)
    loader = make_loader(config, sources, frame, world)
    normalize = None
    if isinstance(frame, Frame):
        normalize = distill.normalize or teacher_normalize(sources.stores[0])
    classes = number_of_classes(dataset, labels)
    test = (
        None if config.dataset.test is None else aligned(open_dataset(config.dataset.test), dataset)
    )
    torch.manual_seed(distill.seed)
    backbone = build_student(distill.student.name, distill.student.args)
    if distill.init is not None:
        load_initial(backbone, distill.init)
    spec = student_spec(config, backbone, dataset.classes, classes, frame, normalize)
    steps = loader.steps * distill.epochs
    model = build_model(config, spec, backbone, sources, world, steps)
    check_optimizers(model, distill)
    return Job(
        config=config,
        spec=spec,
        model=model,
        loader=loader,
        test=None if test is None else open_test(config, test, classes, frame, world),
        validation=open_validation(config, sources, loader, classes, world),
        teacher_test=None if test is None else open_teacher_test(config, test),
        world=world,
        store=sources.stores[0],
        sources=sources,
        test_images=test,
    )


def number_of_classes(dataset: Dataset, labels: npt.NDArray[np.int64]) -> int:
    """Classes of a data set: its names, or the largest label; 1 where it has no labels."""
    return max(len(dataset.classes or ()), int(labels.max()) + 1, 1)


def teacher_normalize(store: FeatureStore) -> Normalize:
    """The teacher's own input normalisation, as the manifest records it."""
    recorded = store.manifest.preprocessing
    return Normalize(mean=recorded["mean"], std=recorded["std"])


def open_test(
    config: Config, dataset: Dataset, classes: int, frame: Frame | ArrayType, world: World
) -> Evaluation:
    """The labelled images of a test data set."""
    labels = dataset.labels
    if int(labels.max(initial=-1)) >= classes:
        raise UsageError(
            f"{dataset.name} has label {labels.max()}, training images only 0 to {classes - 1}"
        )
    rows = np.flatnonzero(labels >= 0)
    if len(rows) == 0:
        raise UsageError(f"{dataset.name} has no labelled image to evaluate on")
    images = open_images(config, dataset, key_hashes(dataset.keys), frame, world)
    return Evaluation(images, labels, rows)


def open_validation(
    config: Config, sources: Sources, loader: Loader, classes: int, world: World
) -> Evaluation | None:
    """The images to choose by, where they are not the test images."""
    if len(sources.held_out):
        return Evaluation(loader.images, sources.datasets[0].labels, sources.held_out)
    validation = config.dataset.validation
    if validation is None or validation.source is None:
        return None
    dataset = open_dataset(validation.source)
    return open_test(config, dataset, classes, loader.images.frame, world)


def open_teacher_test(
    config: Config, dataset: Dataset
) -> tuple[Features, npt.NDArray[np.int64]] | None:
    """Features and labels of the test images, where they were extracted."""
    if not FeatureStore.exists(config.store_url("test")):
        return None
    _, features = open_features(config, dataset, "test")
    return features, np.where(features.valid, dataset.labels, UNLABELLED)


def student_spec(
    config: Config,
    backbone: nn.Module,
    names: list[str] | None,
    classes: int,
    seen: Frame | ArrayType,
    normalize: Normalize | None,
) -> StudentSpec:
    """What the student is made of, its backbone measured. normalize: of images."""
    frame, array = (seen, None) if isinstance(seen, Frame) else (None, seen)
    return StudentSpec(
        student=config.distill.student,
        features=feature_width(backbone, seen.size if isinstance(seen, Frame) else seen),
        dim=config.distill.head.dim,
        classes=classes,
        class_names=names,
        size=None if frame is None else frame.size,
        aspect=None if frame is None else frame.aspect,
        normalize=normalize,
        array=array,
    )


def evaluation_logits(student: Student, distill: DistillConfig) -> Callable[[Tensor], Tensor]:
    """uint8 images [B, 3, H, W] to float32 logits [B, C], in the precision of training."""
    precision = PRECISIONS[distill.precision]

    def logits(images: Tensor) -> Tensor:
        # Not the compiled call, which would be compiled anew for other shapes than training's.
        with autocast(images.device, precision):
            return cast(Tensor, student.forward(images)[1]).float()

    return logits
