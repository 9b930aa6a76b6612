"""From a configuration to everything a training needs, checked before anything is written."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from egapipe.pipeline.config import Config
from egapipe.pipeline.config.data import Normalize
from egapipe.pipeline.config.distill import DistillConfig
from egapipe.pipeline.config.tree import Split
from egapipe.pipeline.datasets import Dataset, open_dataset
from egapipe.pipeline.errors import StoreError, UsageError
from egapipe.pipeline.pairing import check_pair
from egapipe.pipeline.store import Features, FeatureStore
from egapipe.pipeline.views import Hashes, key_hashes
from egapipe.stages.distill.evaluation import Evaluation
from egapipe.stages.distill.images import Images, ResidentImages, Size, StreamedImages
from egapipe.stages.distill.loader import Loader
from egapipe.stages.distill.model import Distillation, Head, Student
from egapipe.stages.distill.objectives import Facts, build_objective
from egapipe.stages.distill.order import UNLABELLED, keep_labels
from egapipe.stages.distill.pixels import SizeMismatchError, decoded_images, first_size, image_size
from egapipe.stages.distill.spec import StudentSpec
from egapipe.stages.distill.students import build_student, feature_width
from egapipe.stages.distill.world import World

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Job:
    """One training, ready to run on one worker."""

    config: Config
    spec: StudentSpec
    model: Distillation
    loader: Loader
    test: Evaluation | None
    teacher_test: tuple[Features, npt.NDArray[np.int64]] | None
    """Test features and labels, where the test images were extracted too."""
    world: World
    store: FeatureStore


def pick_device(name: str) -> torch.device:
    """`auto`, `cpu` or `cuda` to a device. Raises UsageError for a GPU that is not there."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("device is cuda, but torch sees no GPU here: use device cpu or auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def prepare(config: Config, world: World) -> Job:
    """Open and check data, store, student and objective.

    Raises UsageError or StoreError with the one thing to change.
    """
    distill = config.distill
    if distill.threads is not None:
        torch.set_num_threads(distill.threads)
    dataset = open_dataset(config.dataset.train)
    store, features = open_features(config, dataset, "train")
    labels = training_labels(config, dataset, features)
    normalize = distill.normalize or teacher_normalize(store)
    size = student_size(config, dataset)
    hashes = key_hashes(dataset.keys)
    loader = Loader(
        images=open_images(config, dataset, hashes, size, world),
        features=features,
        labels=labels,
        rows=np.flatnonzero(features.valid),
        hashes=hashes,
        teacher_plan=store.manifest.views,
        config=distill,
        world=world,
    )
    classes = number_of_classes(dataset, labels)
    test = None if config.dataset.test is None else open_dataset(config.dataset.test)
    torch.manual_seed(distill.seed)
    backbone = build_student(distill.student.name, distill.student.args)
    spec = student_spec(config, backbone, dataset.classes, classes, size, normalize)
    return Job(
        config=config,
        spec=spec,
        model=build_model(config, spec, backbone, features.dim, labels, world),
        loader=loader,
        test=None if test is None else open_test(config, test, classes, size, world),
        teacher_test=None if test is None else open_teacher_test(config, test),
        world=world,
        store=store,
    )


def open_features(config: Config, dataset: Dataset, split: Split) -> tuple[FeatureStore, Features]:
    """The store of a split and its node-local copy, checked against config and data set."""
    store = FeatureStore.open(config.store_url(split))
    check_pair(store, config, dataset, split)
    features = Features.open(store, cache_dir=config.store.cache_dir)
    valid = np.flatnonzero(features.valid)
    if len(valid) == 0:
        raise StoreError(f"store {store.url} has no usable row: every image failed")
    sample = features.take(valid[:256], 0).float()
    if len(valid) > 1 and bool((sample == sample[0]).all()):
        raise StoreError(
            f"store {store.url} holds the same embedding for different images: "
            "check teacher.pooling and the teacher's weights, then extract again"
        )
    return store, features


def training_labels(config: Config, dataset: Dataset, features: Features) -> npt.NDArray[np.int64]:
    """int64 [N]: the labels that training may use."""
    labels = np.where(features.valid, dataset.labels, UNLABELLED)
    labels = keep_labels(labels, config.distill.labels_per_class, config.distill.seed)
    if not (labels >= 0).any():
        raise UsageError(
            f"{dataset.name} has no labelled image: heads and student are trained on labels; "
            "set dataset.train.label_column, or use sub-folders as classes"
        )
    return labels


def number_of_classes(dataset: Dataset, labels: npt.NDArray[np.int64]) -> int:
    """Classes of a data set: its names, or the largest label."""
    return max(len(dataset.classes or ()), int(labels.max()) + 1)


def teacher_normalize(store: FeatureStore) -> Normalize:
    """The teacher's own input normalisation, as the manifest records it."""
    recorded = store.manifest.preprocessing
    return Normalize(mean=recorded["mean"], std=recorded["std"])


def student_size(config: Config, dataset: Dataset) -> Size:
    """(height, width) of the student's input."""
    side = config.distill.image_size
    return (side, side) if side is not None else first_size(dataset)


def open_images(
    config: Config, dataset: Dataset, hashes: Hashes, size: Size, world: World
) -> Images:
    """Images on the device if they are of one size and fit, else streamed."""
    distill = config.distill
    height, width = first_size(dataset)
    fits = len(dataset) * height * width * 3 <= distill.resident_bytes
    if distill.data == "resident" or (distill.data == "auto" and fits):
        try:
            decoded = decoded_images(dataset)
            return ResidentImages(decoded.pixels, hashes, size, world.device, decoded.unreadable)
        except SizeMismatchError as error:
            if distill.data == "resident":
                raise UsageError(f"distill.data is resident, but {error}") from None
    if distill.image_size is None and not _one_size(dataset):
        raise UsageError(
            f"images of {dataset.name} differ in size: set distill.image_size, the student's input"
        )
    return StreamedImages(dataset, hashes, size, world.device, distill.stream_threads)


def _one_size(dataset: Dataset) -> bool:
    """Whether the images are of one size, judged by a sample: streaming fits all others anyway."""
    step = max(1, len(dataset) // 64)
    sizes = {size for row in range(0, len(dataset), step) if (size := image_size(dataset, row))}
    return len(sizes) == 1


def open_test(
    config: Config, dataset: Dataset, classes: int, size: Size, world: World
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
    images = open_images(config, dataset, key_hashes(dataset.keys), size, world)
    return Evaluation(images, labels, rows)


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
    size: Size,
    normalize: Normalize,
) -> StudentSpec:
    """What the student is made of, its backbone measured."""
    return StudentSpec(
        student=config.distill.student,
        features=feature_width(backbone, size),
        dim=config.distill.head.dim,
        classes=classes,
        class_names=names,
        size=size,
        normalize=normalize,
    )


def build_model(
    config: Config,
    spec: StudentSpec,
    backbone: nn.Module,
    features: int,
    labels: npt.NDArray[np.int64],
    world: World,
) -> Distillation:
    """Student, heads and objective.

    features: width of the teacher's embeddings. labels: int64 [N] that training may use.
    """
    distill = config.distill
    if spec.dim is None and spec.features != features:
        raise UsageError(
            f"distill.head.dim is null, but the student has {spec.features} features and the "
            f"teacher {features}: set distill.head.dim, the width of both node layers"
        )
    # Student before teacher before objective: a seed gives the same student whatever follows.
    student = spec.build(backbone)
    teacher_head = Head(features, spec.dim, spec.classes)
    facts = Facts(
        student_dim=spec.dim or spec.features,
        teacher_dim=spec.dim or features,
        labels=torch.from_numpy(labels),
        seed=distill.seed,
    )
    return Distillation(
        student,
        teacher_head,
        build_objective(distill.objective, facts),
        ce_weight=distill.ce_weight,
        label_smoothing=distill.label_smoothing,
        precision=PRECISIONS[distill.precision],
        world=world,
    ).to(world.device)


def evaluation_logits(student: Student, distill: DistillConfig) -> Callable[[Tensor], Tensor]:
    """uint8 images [B, 3, H, W] to float32 logits [B, C], in the precision of training."""
    precision = PRECISIONS[distill.precision]

    def logits(images: Tensor) -> Tensor:
        half = precision != torch.float32
        with torch.autocast(images.device.type, dtype=precision, enabled=half):
            return cast(Tensor, student(images)[1].float())

    return logits
