"""Test images that are, nearly or exactly, among the training images."""

from dataclasses import dataclass

import numpy as np

from egapipe.pipeline.config import Config
from egapipe.pipeline.datasets import Dataset, aligned, open_dataset
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.pairing import check_pair, open_pair
from egapipe.pipeline.paths import use_cache
from egapipe.pipeline.store import FeatureStore
from egapipe.stages.index.embedding_index import build, directions

Pair = tuple[int, int, float]
"""A test row, the training row that is nearest to it, and their cosine."""

LEVELS = (0.8, 0.85, 0.9, 0.95, 0.99)
_CHUNK = 4096


@dataclass(frozen=True)
class Leak:
    """A test image and the training image that is nearest to it. cosine: of the teacher's
    embeddings. identical: whether the pixels are the same."""

    test_key: str
    train_key: str
    cosine: float
    identical: bool
    same_label: bool


@dataclass(frozen=True)
class LeakReport:
    """leaks: pairs from `threshold` on, the most alike first. levels: cosine -> test images whose
    nearest training image is at least as alike."""

    test_images: int
    train_images: int
    threshold: float
    leaks: list[Leak]
    levels: dict[float, int]


def find_leaks(config: Config, *, threshold: float = 0.95) -> LeakReport:
    """Look for every test image's nearest training image in teacher space.

    threshold: least cosine of what is listed; which one means "the same picture" depends on the
    teacher: look at a few pairs. Raises UsageError (no test split, no sensible threshold) or
    StoreError (a store is missing or another one).
    """
    if not 0 < threshold <= 1:
        raise UsageError(f"threshold is {threshold:g}: give a cosine above 0 and up to 1")
    if config.dataset.test is None:
        raise UsageError(f"{config.name} has no dataset.test to compare with")
    use_cache(config.store.cache_dir)
    train = open_dataset(config.dataset.train)
    test = aligned(open_dataset(config.dataset.test), train)
    check_pair(FeatureStore.open(config.store_url("train")), config, train, "train")
    output, cache = config.distill.teacher_output, config.store.cache_dir
    index = build(config.store_url("train"), kind="flat", output=output, cache_dir=cache)
    _, features = open_pair(config, test, "test")
    rows = np.flatnonzero(features.valid)
    found: list[Pair] = []
    for start in range(0, len(rows), _CHUNK):
        part = rows[start : start + _CHUNK]
        cosines, near = index.search(directions(features, part), 1)
        found += zip(part.tolist(), near[:, 0].tolist(), cosines[:, 0].tolist(), strict=True)
    found.sort(key=lambda pair: -pair[2])
    leaks = [_leak(test, train, pair) for pair in found if pair[2] >= threshold]
    levels = {level: sum(cosine >= level for _, _, cosine in found) for level in LEVELS}
    return LeakReport(len(rows), index.report.rows, threshold, leaks, levels)


def _leak(test: Dataset, train: Dataset, pair: Pair) -> Leak:
    row, near, cosine = pair
    mine, theirs = np.asarray(test.image(row)), np.asarray(train.image(near))
    return Leak(
        test.keys[row],
        train.keys[near],
        cosine,
        identical=np.array_equal(mine, theirs),
        same_label=bool(test.labels[row] == train.labels[near]),
    )
