"""What figures of a run are drawn from: the student's and the teacher's view of test images."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import cross_entropy

from egapipe.pipeline.datasets import Dataset, open_dataset
from egapipe.pipeline.disk.paths import use_cache
from egapipe.pipeline.errors import EgapipeError
from egapipe.pipeline.results.pairing import open_pair
from egapipe.pipeline.store import Features
from egapipe.pipeline.views import CLEAN
from egapipe.stages.distill import TrainedStudent
from egapipe.stages.distill.model.student import TeacherHead
from egapipe.stages.distill.trained import Outputs

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sample:
    """n labelled test images. names: of at least C classes. rows: int64 [n] of the data set.
    labels: int64 [n]. nodes: float32 [n, D] of the student. predicted: int64 [n], the
    student's classes. confidence: float32 [n], its largest probability. losses: float32 [n], its
    cross-entropy of each image. features: the teacher's, or None, and `why` then.
    head: of the teacher, as trained beside the student; None where the checkpoint has none.
    checkpoint: the folder of the student's weights."""

    dataset: Dataset
    names: list[str]
    rows: Ints
    labels: Ints
    nodes: Floats
    predicted: Ints
    confidence: Floats
    losses: Floats
    features: Features | None
    why: str = ""
    head: TeacherHead | None = None
    checkpoint: str = ""

    def teacher(self, places: Ints) -> Floats | None:
        """float32 [k, T]: stored embeddings of clean images; places: int64 [k] of the n."""
        if self.features is None:
            return None
        taken: Floats = self.features.take(self.rows[places], CLEAN).float().flatten(1).numpy()
        return taken

    @torch.no_grad()
    def teacher_nodes(self, places: Ints) -> Floats | None:
        """float32 [k, D]: what the loss compares the student's nodes with, the nodes of the
        teacher's head; places: int64 [k] of the n. None without store or head."""
        features = self.teacher(places)
        if features is None or self.head is None:
            return None
        device = self.head.classifier.weight.device
        nodes: Floats = self.head.node(torch.from_numpy(features).to(device)).cpu().numpy()
        return nodes

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
    parts = [_part(out, dataset.labels[out.rows]) for out in student.outputs(dataset, wanted)]
    if not parts:
        return None
    rows, nodes, predicted, confidence, losses = (
        np.concatenate(of) for of in zip(*parts, strict=True)
    )
    features, why = _features(student, dataset)
    return Sample(
        dataset=dataset,
        names=_names(student, dataset),
        rows=rows,
        labels=dataset.labels[rows],
        nodes=nodes,
        predicted=predicted,
        confidence=confidence,
        losses=losses,
        features=features,
        why=why,
        head=None if features is None else student.teacher_head(),
        checkpoint=student.checkpoint.name,
    )


def _part(out: Outputs, labels: Ints) -> tuple[Ints, Floats, Ints, Floats, Floats]:
    """Rows, nodes, predicted classes, confidence and losses of a batch: its logits are as wide as
    there are classes, and are not kept."""
    losses = cross_entropy(
        out.logits, torch.from_numpy(labels).to(out.logits.device), reduction="none"
    )
    confidence = out.logits.softmax(dim=1).amax(dim=1)
    arrays = (out.nodes, out.logits.argmax(dim=1), confidence, losses)
    nodes, predicted, sure, lost = (tensor.cpu().numpy() for tensor in arrays)
    return out.rows, nodes, predicted, sure, lost


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
