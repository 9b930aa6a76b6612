"""Batches of views: their content and composition depend on the shard alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from egapipe.pipeline.config.data import DigitsSource, FolderSource, ViewsConfig
from egapipe.pipeline.datasets import Dataset, open_dataset
from egapipe.pipeline.datasets.kinds.folder import FolderDataset
from egapipe.pipeline.errors import ImageError
from egapipe.pipeline.store import Failure
from egapipe.pipeline.views import apply_view, view_params
from egapipe.stages.extract.decoding.decode import AHEAD, Decoder, ShardImages
from egapipe.stages.extract.decoding.reader import Reader
from egapipe.stages.extract.teachers import Preprocessing

DIGITS = open_dataset(DigitsSource(kind="digits", split="all"))
PREPROCESSING = Preprocessing((6, 7), None, "bilinear", 1 / 255, (0, 0, 0), (1, 1, 1))


def reader(views: int, dataset: Dataset = DIGITS) -> Reader:
    plan = ViewsConfig(count=views - 1, crop="scale", seed=3)
    return Reader(dataset, PREPROCESSING, plan)


@contextmanager
def decoder(source: Reader, batch_size: int, threads: int = 2) -> Iterator[Decoder]:
    made = Decoder(source, batch_size, threads, pinned=False)
    try:
        yield made
    finally:
        made.close()


def pixels(made: Decoder, images: ShardImages) -> np.ndarray:
    """uint8 [rows * V, 3, H, W] of all batches."""
    return np.concatenate([batch.pixels.numpy() for batch in made.batches(images)])


def expected(source: Reader, rows: range) -> np.ndarray:
    return np.stack([view for row in rows for view in source.views(row)])


def test_the_views_of_a_row_are_those_of_the_plan() -> None:
    source = reader(4)
    image, key = DIGITS.image(11), DIGITS.keys[11]
    views = source.views(11)
    assert np.array_equal(views[0], PREPROCESSING.clean(image))
    for k in range(1, 4):
        view = view_params(source.plan, key, k, (8, 8))
        resized = apply_view(image, view).resize((7, 6), resample=2)
        assert np.array_equal(views[k], np.asarray(resized).transpose(2, 0, 1))


class Counting(FolderDataset):
    """Remembers which rows were decoded."""

    def __init__(self, source: FolderSource) -> None:
        super().__init__(source)
        self.seen: list[int] = []

    def image(self, row: int) -> Image.Image:
        self.seen.append(row)
        return super().image(row)


@pytest.mark.parametrize("batch_size", [1, 3, 8, 100])
def test_an_image_is_decoded_once_for_all_its_views(tmp_path: Path, batch_size: int) -> None:
    for row in range(9):
        DIGITS.image(row).save(tmp_path / f"{row}.png")
    dataset = Counting(FolderSource(kind="folder", path=str(tmp_path)))
    with decoder(reader(4, dataset), batch_size) as made:
        assert len(pixels(made, made.open(range(1, 9)))) == 8 * 4
    assert sorted(dataset.seen) == list(range(1, 9))


@settings(max_examples=60, deadline=None)
@given(
    start=st.integers(0, 100),
    count=st.integers(1, 25),
    views=st.integers(1, 7),
    batch_size=st.integers(1, 40),
    threads=st.integers(1, 4),
)
def test_batches_are_full_in_order_and_complete(
    start: int, count: int, views: int, batch_size: int, threads: int
) -> None:
    rows, source = range(start, start + count), reader(views)
    with decoder(source, batch_size, threads) as made:
        batches = list(made.batches(made.open(rows)))
    starts = list(range(0, count * views, batch_size))
    assert [batch.start for batch in batches] == starts
    assert [len(batch.pixels) for batch in batches[:-1]] == [batch_size] * (len(starts) - 1)
    found = np.concatenate([batch.pixels.numpy() for batch in batches])
    assert np.array_equal(found, expected(source, rows))


@settings(max_examples=30, deadline=None)
@given(
    shards=st.lists(st.integers(1, 30), min_size=1, max_size=5),
    told=st.lists(st.booleans(), min_size=5, max_size=5),
    batch_size=st.integers(1, 20),
)
def test_a_few_batches_are_ahead_whatever_comes_next(
    shards: list[int], told: list[bool], batch_size: int
) -> None:
    """The upcoming shard may be right, wrong (another worker took it) or unknown."""
    source = reader(2)
    plan = [range(7 * i, 7 * i + length) for i, length in enumerate(shards)]
    with decoder(source, batch_size) as made:
        for number, rows in enumerate(plan):
            following = plan[number + 1] if number + 1 < len(plan) else range(90, 95)
            upcoming = following if told[number] else range(200, 230)
            images = made.open(rows, upcoming)
            found = []
            for batch in made.batches(images):
                assert images.waiting <= AHEAD
                found.append(batch.pixels.numpy().copy())
            assert np.array_equal(np.concatenate(found), expected(source, rows))


def test_the_upcoming_shard_is_decoded_while_the_teacher_finishes_the_current_one() -> None:
    with decoder(reader(1), batch_size=4) as made:
        current = made.open(range(8), range(8, 40))
        assert current.waiting == 0
        pixels(made, current)
        upcoming = made.open(range(8, 40))
        assert upcoming.waiting == AHEAD


def test_the_seconds_are_those_of_all_threads() -> None:
    with decoder(reader(3), batch_size=16) as made:
        images = made.open(range(100))
        pixels(made, images)
    assert images.seconds > 0


@pytest.fixture
def spoiled(tmp_path: Path) -> Dataset:
    """Ten images, of which two are not."""
    for row in range(10):
        DIGITS.image(row).save(tmp_path / f"{row}.png")
    (tmp_path / "3.png").write_bytes((tmp_path / "3.png").read_bytes()[:60])
    (tmp_path / "8.png").write_bytes(b"no image")
    return open_dataset(FolderSource(kind="folder", path=str(tmp_path)))


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_an_unreadable_image_is_a_failure_of_its_row_alone(
    spoiled: Dataset, batch_size: int
) -> None:
    source = reader(3, spoiled)
    with decoder(source, batch_size) as made:
        images = made.open(range(2, 10))
        found = pixels(made, images).reshape(8, 3, 3, 6, 7)
    reasons = {}
    for row in (3, 8):
        with pytest.raises(ImageError) as error:
            source.views(row)
        reasons[row] = str(error.value)
    assert images.failures == [Failure(r, f"{r}.png", reasons[r]) for r in (3, 8)]
    assert "damaged" in reasons[3]
    assert "not an image" in reasons[8]
    for row in range(2, 10):
        right = np.zeros((3, 3, 6, 7)) if row in reasons else np.stack(source.views(row))
        assert np.array_equal(found[row - 2], right)
