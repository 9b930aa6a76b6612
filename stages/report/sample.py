"""What figures of a run are drawn from: the student's and the teacher's view of test images."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from egapipe.pipeline.datasets import Dataset, open_dataset
from egapipe.pipeline.errors import EgapipeError
from egapipe.pipeline.pairing import open_pair
from egapipe.pipeline.paths import use_cache
from egapipe.pipeline.store import Features
from egapipe.pipeline.views import CLEAN
from egapipe.stages.distill import TrainedStudent

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sample:
    """n labelled test images. names: of at least C classes. rows: int64 [n] of the data set.
    labels: int64 [n]. nodes: float32 [n, D] of the student. logits: float32 [n, C]. features: the
    teacher's, or None, and `why` then."""

    dataset: Dataset
    names: list[str]
    rows: Ints
    labels: Ints
    nodes: Floats
    logits: Floats
    features: Features | None
    why: str = ""

    @property
    def predicted(self) -> Ints:
        """int64 [n]: the student's classes."""
        return np.asarray(self.logits.argmax(axis=1), dtype=np.int64)

    def losses(self) -> Floats:
        """float32 [n]: the student's cross-entropy of each image."""
        shifted = self.logits - self.logits.max(axis=1, keepdims=True)
        log_sum = np.log(np.exp(shifted).sum(axis=1))
        losses: Floats = log_sum - shifted[np.arange(len(shifted)), self.labels]
        return losses

    def teacher(self, places: Ints) -> Floats | None:
        """float32 [k, T]: stored embeddings of clean images; places: int64 [k] of the n."""
        if self.features is None:
            return None
        taken: Floats = self.features.take(self.rows[places], CLEAN).float().flatten(1).numpy()
        return taken

    def embedded(self) -> Ints:
        """int64 [k]: places of the images that both student and teacher have an embedding of."""
        known = np.isfinite(self.nodes).all(axis=1)
        if self.features is not None:
            known &= self.features.valid[self.rows]
        return np.flatnonzero(known)

    def described(self, place: int) -> str:
        """What an image is, and what the student takes it for."""
        label, said = self.names[self.labels[place]], self.names[self.predicted[place]]
        return label if label == said else f"{label}, taken for {said}"


def take_sample(student: TrainedStudent) -> Sample | None:
    """Every labelled test image that can be read; None if the experiment has none."""
    config = student.config
    if config.dataset.test is None:
        return None
    use_cache(config.store.cache_dir)
    dataset = student.numbered(open_dataset(config.dataset.test))
    wanted = np.flatnonzero((dataset.labels >= 0) & (dataset.labels < student.spec.classes))
    parts = list(student.outputs(dataset, wanted))
    if not parts:
        return None
    rows = np.concatenate([part.rows for part in parts])
    features, why = _features(student, dataset)
    return Sample(
        dataset=dataset,
        names=_names(student, dataset),
        rows=rows,
        labels=dataset.labels[rows],
        nodes=np.concatenate([part.nodes.cpu().numpy() for part in parts]),
        logits=np.concatenate([part.logits.cpu().numpy() for part in parts]),
        features=features,
        why=why,
    )


def _names(student: TrainedStudent, dataset: Dataset) -> list[str]:
    """A name for each of the student's classes: its number where nothing else is known."""
    known = list(dataset.classes or student.spec.class_names or [])[: student.spec.classes]
    return known + [str(number) for number in range(len(known), student.spec.classes)]


def _features(student: TrainedStudent, dataset: Dataset) -> tuple[Features | None, str]:
    """The test store's; without a store that fits, why not."""
    try:
        return open_pair(student.config, dataset, "test")[1], ""
    except EgapipeError as error:
        return None, str(error)
