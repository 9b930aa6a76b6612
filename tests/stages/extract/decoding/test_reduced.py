"""`extract.jpeg: reduced`: large photographs are decoded smaller, and it is another store."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image
from sklearn.datasets import load_sample_image

from egapipe.pipeline.config.data import FolderSource, ViewsConfig
from egapipe.pipeline.datasets import open_dataset
from egapipe.pipeline.datasets.decoding.images import decode
from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.store import FeatureStore
from egapipe.pipeline.views import Boxes, View
from egapipe.stages import extract
from egapipe.stages.bench.synthetic import MEAN, STD
from egapipe.stages.extract.decoding.reader import Reader
from egapipe.stages.extract.decoding.reduced import Reduced, divisor_of, scaled
from egapipe.stages.extract.teachers.preprocessing import Preprocessing
from tests.stages.extract.conftest import MakeConfig

SIZES = st.tuples(st.integers(1, 5000), st.integers(1, 5000))
WHOLE = Preprocessing(72, (64, 64), "bicubic", 1 / 255, MEAN, STD)


def photo(size: tuple[int, int]) -> Image.Image:
    """Of a size (height, width)."""
    image = Image.fromarray(load_sample_image("flower.jpg"))
    return image.resize((size[1], size[0]), Image.Resampling.LANCZOS)


def encoded(image: Image.Image, suffix: str = "jpeg", orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    buffer = io.BytesIO()
    image.save(buffer, suffix, exif=exif)
    return buffer.getvalue()


@given(SIZES, st.lists(SIZES, max_size=3), SIZES)
def test_nothing_becomes_smaller_than_the_teachers_input(
    size: tuple[int, int], parts: list[tuple[int, int]], least: tuple[int, int]
) -> None:
    box = np.array([(0, 0, *part) for part in parts], dtype=np.int64).reshape(-1, 4)
    by = divisor_of(
        size, Boxes(box, np.zeros(len(box), np.bool_), np.zeros(len(box), np.int64)), least
    )
    assert by in (1, 2, 4, 8)
    sides = [side // by for part in [size, *parts] for side in part]
    limits = [*least] * (1 + len(parts))
    assert by == 1 or all(side >= limit for side, limit in zip(sides, limits, strict=True))


def test_images_that_are_not_resized_are_whole() -> None:
    assert (
        divisor_of(
            (4000, 4000),
            Boxes(np.zeros((0, 4), np.int64), np.zeros(0, np.bool_), np.zeros(0, np.int64)),
            None,
        )
        == 1
    )
    assert Preprocessing(None, (64, 64), "bicubic", 1, MEAN, STD).least is None
    assert WHOLE.least == (72, 72)
    assert Preprocessing((64, 80), (70, 70), "bicubic", 1, MEAN, STD).least == (70, 80)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_is_upright_and_the_size_is_that_of_the_upright_image(orientation: int) -> None:
    data = encoded(photo((300, 404)), orientation=orientation)
    whole, asked = decode(data), []

    def quarter(height: int, width: int) -> int:
        asked.append((height, width))
        return 4

    small = decode(data, quarter)
    assert asked == [(whole.height, whole.width)]
    assert (small.height, small.width) == (-(-whole.height // 4), -(-whole.width // 4))
    reference = whole.resize(small.size, Image.Resampling.BOX)
    difference = np.asarray(small, np.float32) - np.asarray(reference, np.float32)
    assert np.abs(difference).mean() < 2


def test_other_formats_are_whole() -> None:
    data = encoded(photo((64, 80)), "png")
    assert decode(data, lambda height, width: 8).size == (80, 64)


def test_views_are_of_the_same_places() -> None:
    view = View(top=100, left=40, height=201, width=300, flip=True)
    assert scaled(view, (800, 640), (800, 640)) == view
    assert scaled(view, (800, 640), (200, 160)) == View(25, 10, 50, 75, True)
    assert scaled(View(-8, -8, 40, 40, False), (32, 32), (16, 16)) == View(-4, -4, 20, 20, False)


@pytest.mark.parametrize("crop", ["scale", "pad", "none"])
def test_pixels_are_nearly_those_of_whole_images(tmp_path: Path, crop: str) -> None:
    for row in range(4):
        (tmp_path / f"{row}.jpg").write_bytes(encoded(photo((600, 800))))
    # Small enough that it stays whole, and what has no low frequencies by itself.
    (tmp_path / "small.jpg").write_bytes(encoded(photo((100, 120))))
    (tmp_path / "z.png").write_bytes(encoded(photo((600, 800)), "png"))
    dataset = open_dataset(FolderSource(kind="folder", path=str(tmp_path)))
    plan = ViewsConfig(count=3, crop=crop, scale=(0.5, 1.0))
    whole, reduced = Reader(dataset, WHOLE, plan), Reader(dataset, Reduced(WHOLE), plan)
    for row, key in enumerate(dataset.keys):
        one, other = np.array(whole.views(row)), np.array(reduced.views(row))
        assert one.shape == other.shape
        difference = np.abs(one.astype(np.float32) - other).mean()
        if key in ("small.jpg", "z.png"):
            assert difference == 0
        else:
            assert 0 < difference < 3


def test_it_is_part_of_the_stores_identity(quick: MakeConfig) -> None:
    config = quick("extract.jpeg=reduced")
    extract.run(config, split="train", local=True)
    stored = FeatureStore.open(config.store_url("train")).manifest
    assert stored.preprocessing["jpeg"] == "reduced"
    extract.run(config, split="train", local=True)
    with pytest.raises(StoreError, match="jpeg"):
        extract.run(quick(), split="train", local=True)


def test_whole_images_are_what_every_older_store_has(quick: MakeConfig) -> None:
    config = quick()
    extract.run(config, split="train", local=True)
    assert "jpeg" not in FeatureStore.open(config.store_url("train")).manifest.preprocessing
    with pytest.raises(StoreError, match="jpeg"):
        extract.run(quick("extract.jpeg=reduced"), split="train", local=True)
