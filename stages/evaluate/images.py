"""The images of a run's splits, and the teacher's embeddings of them from the store."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from egapipe.pipeline.config import Config
from egapipe.pipeline.config.tree import Split
from egapipe.pipeline.datasets import Dataset, open_dataset
from egapipe.pipeline.errors import EgapipeError
from egapipe.pipeline.results.pairing import open_pair
from egapipe.pipeline.store import Features
from egapipe.pipeline.views import CLEAN
from egapipe.stages.evaluate.left_out import UnavailableError

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Images:
    """Rows of one split. rows: int64 [n] of the data set, ascending. features: the store's, or
    None; `why` then says why."""

    dataset: Dataset
    rows: Ints
    features: Features | None
    why: str = ""

    def with_teacher(self, rows: Ints) -> Bools:
        """bool [n]: False for rows that failed when they were extracted. rows: int64 [n]."""
        return (
            np.ones(len(rows), dtype=bool) if self.features is None else self.features.valid[rows]
        )

    def teacher(self, rows: Ints) -> Floats:
        """The teacher's embeddings of clean images, float32 [n, D].

        rows: int64 [n] of the data set. Raises UnavailableError without a store.
        """
        if self.features is None:
            raise UnavailableError(self.why)
        embeddings: Floats = self.features.take(rows, CLEAN).float().numpy()
        return embeddings


def open_images(config: Config, split: Split) -> Images:
    """All images of a split.

    Raises UnavailableError if the configuration has no such split, UsageError if its images are
    not where it says.
    """
    source = config.source(split)
    if source is None:
        raise UnavailableError(f"{config.name} has no dataset.{split}")
    dataset = open_dataset(source)
    try:
        features = open_features(config, dataset, split)
    except EgapipeError as error:
        return Images(dataset, np.arange(len(dataset)), None, str(error))
    return Images(dataset, np.arange(len(dataset)), features)


def open_training_images(config: Config, limit: int) -> Images:
    """Labelled training images that did not fail, at most `limit`, drawn once and for all.

    All labels of the data set count, those too that `distill.labels_per_class` hid from the
    student: they measure its embeddings, and the teacher's by the same measure. Raises
    UnavailableError if there is none.
    """
    if limit == 0:
        raise UnavailableError("no training images were asked for")
    try:
        images = open_images(config, "train")
    except EgapipeError as error:
        raise UnavailableError(str(error)) from None
    rows = images.rows[(images.dataset.labels >= 0) & images.with_teacher(images.rows)]
    if len(rows) == 0:
        raise UnavailableError(f"{images.dataset.name} has no labelled training image")
    if len(rows) > limit:
        rows = np.sort(np.random.default_rng(0).choice(rows, limit, replace=False))
    return Images(images.dataset, rows, images.features, images.why)


def open_features(config: Config, dataset: Dataset, split: Split) -> Features:
    """The features of a split. Raises StoreError if the store is not there or another one."""
    return open_pair(config, dataset, split)[1]
