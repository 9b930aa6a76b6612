"""How far a file of a lower precision is from the student, on real images."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from egapipe.pipeline.datasets import Dataset, open_dataset
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.views import key_hashes
from egapipe.stages.distill import TrainedStudent
from egapipe.stages.distill.data.inputs.images import StreamedImages, readable
from egapipe.stages.export.written import Run

MOST = 2000
"""Images, spread evenly over the test images."""
_BATCH = 64


@dataclass(frozen=True)
class Agreement:
    """Of a file and the student on the same images.

    images: how many. same: % of them with the same most probable class. labelled: images of `split`
    with a label. top1, student_top1: accuracy on those, %; None without any.
    """

    split: str
    images: int
    same: float
    labelled: int = 0
    top1: float | None = None
    student_top1: float | None = None


def agreement(run: Run, student: TrainedStudent, reference: Run, pixels: Tensor) -> Agreement:
    """Compare classes on the run's test images; without them on `pixels`, uint8 [N, 3, H, W]."""
    found, true, labels = [], [], []
    split = "test"
    try:
        batches = _test_images(student)
    except UsageError:
        split, batches = "checked", iter([(pixels, np.full(len(pixels), -1))])
    for images, classes in batches:
        found.append(run(images)[0].argmax(axis=1))
        true.append(reference(images)[0].argmax(axis=1))
        labels.append(classes)
    ours, theirs, known = (np.concatenate(parts) for parts in (found, true, labels))
    labelled = known >= 0
    scores = {}
    if labelled.any():
        scores = {
            "top1": 100 * float((ours == known)[labelled].mean()),
            "student_top1": 100 * float((theirs == known)[labelled].mean()),
        }
    same = 100 * float((ours == theirs).mean())
    return Agreement(split, len(ours), same, int(labelled.sum()), **scores)


def in_words(found: Agreement) -> str:
    """In one line."""
    text = f"the student's class on {found.same:.2f} % of {found.images:,} {found.split} images"
    if found.top1 is not None and found.student_top1 is not None:
        text += f", top-1 {found.top1:.2f} % (student {found.student_top1:.2f} %)"
        text += f" on {found.labelled:,} labelled ones" * (found.labelled < found.images)
    return text


def _test_images(student: TrainedStudent) -> Iterator[tuple[Tensor, np.ndarray]]:
    """Batches of clean test images and their labels. Raises UsageError if there are none."""
    if student.config.dataset.test is None:
        raise UsageError("there are no test images")
    dataset = student.numbered(open_dataset(student.config.dataset.test))
    rows = np.arange(len(dataset))
    rows = rows[:: max(1, -(-len(rows) // MOST))]
    batches = _read(student, dataset, rows)
    first = next(batches, None)
    if first is None:
        raise UsageError(f"{dataset.name} has no readable image")
    return chain([first], batches)


def _read(
    student: TrainedStudent, dataset: Dataset, rows: np.ndarray
) -> Iterator[tuple[Tensor, np.ndarray]]:
    hashes, device = key_hashes(dataset.keys), torch.device("cpu")
    stream = StreamedImages(dataset, hashes, student.spec.frame, device, threads=1)
    for start in range(0, len(rows), _BATCH):
        read, images = readable(stream, rows[start : start + _BATCH])
        if len(read):
            yield images.contiguous(), dataset.labels[read]
