"""The images by which an epoch, or a setting, is chosen, and those that it is reported on."""

from typing import Literal

import numpy as np

from egapipe.pipeline.config import Config
from egapipe.pipeline.config.data import ValidationConfig
from egapipe.pipeline.datasets import Dataset
from egapipe.pipeline.errors import UsageError
from egapipe.stages.distill.data.rows.order import UNLABELLED, Ints, generator

# A stream of random numbers beside those of the orders.
_HELD_OUT = 5

Chosen = Literal["validation", "test"]
ON_TEST = (
    "chosen on the test images that it is reported on: set dataset.validation to choose on others"
)
"""What is said beside the best of something that was."""


def chosen_on(config: Config) -> Chosen | None:
    """Which images the best epoch is chosen by: None where there are none."""
    if config.dataset.validation is not None:
        return "validation"
    return None if config.dataset.test is None else "test"


def held_out(dataset: Dataset, validation: ValidationConfig | None) -> Ints:
    """The rows of the labelled split that no training sees, sorted; none without a `fraction`.

    Their share of each class is the fraction, and of two images of a class at least one stays on
    either side. A function of the seed, the classes and the keys: the same whatever a student's
    seed is. Raises UsageError where no class has two images.
    """
    if validation is None or validation.fraction is None:
        return np.empty(0, dtype=np.int64)
    labels, chosen = dataset.labels, []
    for label in np.unique(labels[labels != UNLABELLED]):
        rows = np.flatnonzero(labels == label)
        count = min(max(1, round(validation.fraction * len(rows))), len(rows) - 1)
        chosen.append(generator(validation.seed, int(label), _HELD_OUT).permutation(rows)[:count])
    rows = np.sort(np.concatenate(chosen)) if chosen else np.empty(0, dtype=np.int64)
    if len(rows) == 0:
        raise UsageError(
            f"dataset.validation.fraction is {validation.fraction:g}, but no class of "
            f"{dataset.name} has two images: set dataset.validation.source, or null"
        )
    return rows
