"""Checks of the images and their labels."""

import numpy as np
import numpy.typing as npt

from egapipe.pipeline.datasets import Dataset, aligned
from egapipe.pipeline.datasets.choice import WARNING
from egapipe.pipeline.errors import UsageError
from egapipe.stages.doctor.parts import Parts
from egapipe.stages.doctor.report import Result, fail, ok, warn

_QUOTED = 3


def check_images(parts: Parts) -> Result:
    """Images of every split are listed, and a few of the training images can be read."""
    counts = {split: len(parts.dataset(split)) for split in parts.config.splits()}
    rows = parts.rows.get()
    first = _size_of(parts.dataset("train"), int(rows[0]))
    listed = ", ".join(f"{count:,} {split}" for split, count in counts.items())
    said = f"{listed}; {len(rows)} were read, the first has {first}"
    doubts = [
        note
        for split in parts.config.splits()
        for note in parts.dataset(split).notes
        if note.startswith(WARNING)
    ]
    return warn("; ".join([said, *doubts])) if doubts else ok(said)


def _size_of(dataset: Dataset, row: int) -> str:
    if dataset.arrays is not None:
        kind, shape = dataset.arrays.type.dtype, " x ".join(map(str, dataset.array(row)[0].shape))
        return f"{shape} of {kind} in {dataset.arrays.variants} variants"
    image = dataset.image(row)
    return f"{image.width} x {image.height}"


def check_labels(parts: Parts) -> Result:
    """Heads and student are trained on labels: there are some, as many as are asked for."""
    dataset, asked = parts.dataset("train"), parts.config.distill.labels_per_class
    labelled = dataset.labels[dataset.labels >= 0]
    if not len(labelled) and not parts.config.distill.learns_labels:
        return ok("no row has a class, and nothing of distill learns from one")
    if not len(labelled):
        return fail(
            f"{dataset.name} has no labelled image: set dataset.train.label_column, or use "
            "sub-folders as classes"
        )
    counts = np.bincount(labelled, minlength=len(dataset.classes or ()))
    said = f"{len(labelled):,} of {len(dataset):,} rows have one of {len(counts)} classes"
    scarce = np.flatnonzero((counts > 0) & (counts < (asked or 0)))
    if len(scarce):
        return fail(
            f"{said}, but distill.labels_per_class is {asked} and {_few(dataset, scarce)} has "
            f"{counts[scarce[0]]}: lower it"
        )
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        return warn(f"{said}; {len(empty)} of them have no row: {_few(dataset, empty)}")
    return ok(said)


def check_classes(parts: Parts) -> Result:
    """Every class of the test images is one of training, by its name."""
    train, test = parts.dataset("train"), parts.dataset("test")
    known = max(len(train.classes or ()), int(train.labels.max(initial=-1)) + 1)
    if not (test.labels >= 0).any():
        return fail(f"{test.name} has no labelled image to evaluate on: set its label_column")
    try:
        test = aligned(test, train)
    except UsageError as error:
        return fail(str(error))
    tested = np.unique(test.labels[test.labels >= 0])
    if tested[-1] >= known:
        return fail(f"{test.name} has label {tested[-1]}, training images only 0 to {known - 1}")
    unseen = np.setdiff1d(tested, train.labels)
    if len(unseen):
        return warn(f"test images are of classes that no training image has: {_few(test, unseen)}")
    return ok(f"{len(tested)} classes in the test images, all of them among {known} of training")


def _few(dataset: Dataset, labels: npt.NDArray[np.int64]) -> str:
    """The first of some classes, by name where there are names."""
    names = dataset.classes
    shown = [str(label) if names is None else names[label] for label in labels[:_QUOTED]]
    return ", ".join(shown) + (", ..." if len(labels) > _QUOTED else "")
