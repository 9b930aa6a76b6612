"""Test images that are, nearly or exactly, among the training images."""

from dataclasses import dataclass

import numpy as np

from egapipe.pipeline.config import Config
from egapipe.pipeline.datasets import Dataset, aligned, open_dataset
from egapipe.pipeline.disk.paths import use_cache
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.mathematics.nearest import Floats, Ints
from egapipe.pipeline.results.pairing import check_pair, open_pair
from egapipe.pipeline.store import Features, FeatureStore
from egapipe.pipeline.terminal.progress import OpenProgress, silent_progress
from egapipe.pipeline.views import CLEAN
from egapipe.stages.index.embedding_index import EmbeddingIndex, build, directions
from egapipe.stages.index.pictures import (
    Copy,
    Pictures,
    find_copies,
    read_pictures,
    same_picture,
)

Pair = tuple[int, float]
"""The training row that is nearest to a test row, and their cosine."""

LEVELS = (0.8, 0.85, 0.9, 0.95, 0.99)
USUAL = 0.99
"""Share of the training images that have no other one as near as the threshold."""
_CHUNK = 4096
# Training images whose neighbours are looked at, and neighbours of each: copies among them are
# passed over.
_SAMPLED, _NEIGHBOURS = 5_000, 8
# Where no picture can be compared, so equal embeddings are taken for those of copies.
_EQUAL = 0.9999


@dataclass(frozen=True)
class Leak:
    """A test image and the training image that is a copy of it, or else nearest to it. cosine: of
    the teacher's embeddings. copy: in which way it is a copy, see `Copy`; None where it is none."""

    test_key: str
    train_key: str
    cosine: float
    copy: Copy | None
    same_label: bool


@dataclass(frozen=True)
class LeakReport:
    """leaks: copies, and pairs from `threshold` on; the most alike first. levels: cosine -> test
    images whose nearest training image is at least as alike. sampled: training images that the
    threshold was derived from, 0 where it was given. hashed: images of both whose pictures were
    compared. unread: those that could not be read."""

    test_images: int
    train_images: int
    threshold: float
    leaks: list[Leak]
    levels: dict[float, int]
    sampled: int
    hashed: int
    unread: int


def find_leaks(
    config: Config,
    *,
    threshold: float | None = None,
    pictures: bool = True,
    progress: OpenProgress = silent_progress,
) -> LeakReport:
    """Look for every test image's copies and nearest neighbour among the training images.

    Copies are found by a perceptual hash of the pictures, whatever the teacher makes of them; it
    decodes every image, which `pictures` can switch off. The others are listed from a cosine in
    teacher space on, `threshold`. Without one it is derived: of up to 5,000 training images, 99 %
    have no other training image as near, copies left aside. So about 1 % of the test images are
    listed where nothing leaks. Raises UsageError (no test split, no sensible threshold) or
    StoreError (a store is missing or another one).
    """
    if threshold is not None and not 0 < threshold <= 1:
        raise UsageError(f"threshold is {threshold:g}: give a cosine above 0 and up to 1")
    if config.dataset.test is None:
        raise UsageError(f"{config.name} has no dataset.test to compare with")
    use_cache(config.store.cache_dir)
    train = open_dataset(config.dataset.train)
    test = aligned(open_dataset(config.dataset.test), train)
    store = FeatureStore.open(config.store_url("train"))
    check_pair(store, config, train, "train")
    output, cache = config.distill.teacher_output, config.store.cache_dir
    index = build(config.store_url("train"), kind="flat", output=output, cache_dir=cache)
    learned = Features.open(store, output, cache, views=[CLEAN])
    _, tested = open_pair(config, test, "test")
    rows, known = np.flatnonzero(tested.valid), np.flatnonzero(learned.valid)
    mine, theirs = _pictures((test, train), (rows, known), progress, wanted=pictures)
    sampled = 0
    if threshold is None:
        threshold, sampled = usual_threshold(index, learned, known, theirs)
    near = _nearest(index, tested, rows)
    leaks = []
    for row, (other, copy) in find_copies(mine, theirs).items():
        cosine = _cosine(tested, row, learned, other)
        leaks.append(_leak(test, train, row, (other, cosine), copy))
        near.setdefault(row, (other, cosine))
    copied = {leak.test_key for leak in leaks}
    leaks += [
        _leak(test, train, row, pair, None)
        for row, pair in near.items()
        if pair[1] >= threshold and test.keys[row] not in copied
    ]
    leaks.sort(key=lambda leak: (leak.copy is None, -leak.cosine))
    return LeakReport(
        test_images=len(rows),
        train_images=len(known),
        threshold=threshold,
        leaks=leaks,
        levels={level: sum(c >= level for _, c in near.values()) for level in LEVELS},
        sampled=sampled,
        hashed=len(mine.rows) + len(theirs.rows),
        unread=mine.unread + theirs.unread,
    )


def usual_threshold(
    index: EmbeddingIndex, features: Features, rows: Ints, pictures: Pictures
) -> tuple[float, int]:
    """The cosine that 99 % of training images have no other one from, and how many were looked at.

    Of each, the nearest neighbour that is neither itself nor a copy. rows: int64 [N], those of the
    index. Without any neighbour it is 1.
    """
    drawn = np.random.default_rng(0).choice(rows, min(_SAMPLED, len(rows)), replace=False)
    place = {row: number for number, row in enumerate(pictures.rows.tolist())}
    found: list[float] = []
    for start in range(0, len(drawn), _CHUNK):
        part = drawn[start : start + _CHUNK]
        cosines, near = index.search(directions(features, part), _NEIGHBOURS)
        for row, own, others in zip(part.tolist(), cosines, near, strict=True):
            other = _others(row, own, others, place, pictures)
            found += [float(c) for c in other[:1]]
    if not found:
        return 1.0, len(drawn)
    return min(1.0, float(np.quantile(found, USUAL, method="higher"))), len(drawn)


def _others(
    row: int, cosines: Floats, rows: Ints, place: dict[int, int], pictures: Pictures
) -> Floats:
    """float32 [<= k], falling: cosines of neighbours that are neither the row nor its copies."""
    other = (rows >= 0) & (rows != row)
    cosines, rows = cosines[other], rows[other]
    copies = cosines >= _EQUAL
    seen = np.array([number in place for number in rows.tolist()], dtype=bool)
    if row in place and seen.any():
        hashes = pictures.hashes[[place[number] for number in rows[seen].tolist()]]
        own = pictures.hashes[place[row]]
        copies[seen] = same_picture(hashes, np.broadcast_to(own, hashes.shape))
    return cosines[~copies]


def _pictures(
    datasets: tuple[Dataset, Dataset],
    rows: tuple[Ints, Ints],
    progress: OpenProgress,
    *,
    wanted: bool,
) -> tuple[Pictures, Pictures]:
    """Of test and training images; of none, where they are not wanted."""
    mine, theirs = rows if wanted else (rows[0][:0], rows[1][:0])
    total = len(mine) + len(theirs)
    with progress("comparing pictures", total, unit="images") as shown:
        first = read_pictures(datasets[0], mine, shown)
        return first, read_pictures(datasets[1], theirs, shown, done=len(mine))


def _nearest(index: EmbeddingIndex, features: Features, rows: Ints) -> dict[int, Pair]:
    """Of every row, the nearest one in an index."""
    found: dict[int, Pair] = {}
    for start in range(0, len(rows), _CHUNK):
        part = rows[start : start + _CHUNK]
        cosines, near = index.search(directions(features, part), 1)
        pairs = zip(near[:, 0].tolist(), cosines[:, 0].tolist(), strict=True)
        found.update(zip(part.tolist(), pairs, strict=True))
    return found


def _cosine(tested: Features, row: int, learned: Features, other: int) -> float:
    one, two = (directions(of, np.array([r])) for of, r in ((tested, row), (learned, other)))
    return float((one * two).sum())


def _leak(test: Dataset, train: Dataset, row: int, pair: Pair, copy: Copy | None) -> Leak:
    near, cosine = pair
    same = bool(test.labels[row] == train.labels[near])
    return Leak(test.keys[row], train.keys[near], cosine, copy, same)
