"""The student sees exactly the crop and flip that the view names, on every path."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from egapipe.pipeline.config.data import DigitsSource, ViewsConfig
from egapipe.pipeline.datasets import open_dataset
from egapipe.pipeline.views import apply_view, key_hashes, view_boxes
from egapipe.stages.distill.data.agreement import RESIZED
from egapipe.stages.distill.data.inputs.images import Frame, ResidentImages, StreamedImages, fitted

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (40, 12, 10, 3), dtype=np.uint8)
HASHES = key_hashes([str(i) for i in range(40)])


def replayed(rows: np.ndarray, plan: ViewsConfig, k: int) -> np.ndarray:
    boxes = view_boxes(plan, HASHES[rows], k, np.array([[12, 10]]))
    views = [apply_view(Image.fromarray(PIXELS[r]), boxes[i]) for i, r in enumerate(rows)]
    return np.stack([np.asarray(v).transpose(2, 0, 1) for v in views])


@settings(deadline=None)
@given(
    rows=st.lists(st.integers(0, 39), min_size=1, max_size=20),
    k=st.integers(0, 5),
    padding=st.sampled_from([0.0, 0.125, 0.5, 1.0]),
    flip=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_resident_crops_are_pixel_exact(
    rows: list[int], k: int, padding: float, flip: float
) -> None:
    plan = ViewsConfig(crop="pad", padding=padding, flip=flip)
    index = np.array(rows)
    batch = ResidentImages(PIXELS, HASHES, Frame((12, 10)), CPU).batch(index, plan, k)
    assert batch.dtype == torch.uint8
    np.testing.assert_array_equal(batch.numpy(), replayed(index, plan, k))


def test_resized_crops_agree_with_pil_to_a_rounding() -> None:
    plan = ViewsConfig(crop="scale", flip=0.5)
    rows = np.arange(40)
    batch = ResidentImages(PIXELS, HASHES, Frame((8, 8)), CPU).batch(rows, plan, 1).numpy()
    boxes = view_boxes(plan, HASHES, 1, np.array([[12, 10]]))
    for i in rows:
        view = apply_view(Image.fromarray(PIXELS[i]), boxes[i])
        wanted = np.asarray(view.resize((8, 8), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        assert np.abs(batch[i].astype(int) - wanted.astype(int)).max() <= 1


@pytest.mark.parametrize("crop", ["none", "pad", "scale"])
@pytest.mark.parametrize("size", [(12, 10), (10, 12), (8, 8), (12, 12)])
def test_turned_views_agree_with_pil(crop: str, size: tuple[int, int]) -> None:
    """Of images that are not square, so that a turned one has another shape."""
    plan = ViewsConfig(count=4, turns=4, crop=crop, padding=0.25)
    resident = ResidentImages(PIXELS, HASHES, Frame(size), CPU)
    for k in range(1, 5):
        batch = resident.batch(np.arange(40), plan, k).numpy()
        boxes = view_boxes(plan, HASHES, k, np.array([[12, 10]]))
        for i in range(40):
            view = apply_view(Image.fromarray(PIXELS[i]), boxes[i])
            wanted = np.asarray(fitted(view, size)).transpose(2, 0, 1)
            most = 0 if (view.height, view.width) == size else RESIZED
            assert np.abs(batch[i].astype(int) - wanted.astype(int)).max() <= most


def test_a_batch_has_views_of_every_turn() -> None:
    plan = ViewsConfig(count=4, turns=4, flip=0.5)
    squares, k = PIXELS[:, :10], 1 + np.arange(40) % 4
    batch = ResidentImages(squares, HASHES, Frame((10, 10)), CPU).batch(np.arange(40), plan, k)
    boxes = view_boxes(plan, HASHES, k, np.array([[10, 10]]))
    views = [np.asarray(apply_view(Image.fromarray(squares[i]), boxes[i])) for i in range(40)]
    np.testing.assert_array_equal(batch.permute(0, 2, 3, 1).numpy(), np.stack(views))


@pytest.mark.parametrize("crop", ["none", "pad", "scale"])
@pytest.mark.parametrize("size", [(8, 8), (11, 11)])
def test_streamed_and_resident_images_agree(crop: str, size: tuple[int, int]) -> None:
    digits = open_dataset(DigitsSource(kind="digits"))
    hashes = key_hashes(digits.keys)
    pixels = np.stack([np.asarray(digits.image(row)) for row in range(len(digits))])
    plan = ViewsConfig(crop=crop)
    rows = np.arange(0, 1400, 100)
    resident = ResidentImages(pixels, hashes, Frame(size), CPU).batch(rows, plan, 2)
    streamed = StreamedImages(digits, hashes, Frame(size), CPU, 2).batch(rows, plan, 2)
    tolerance = 0 if size == (8, 8) and crop != "scale" else 1
    assert (resident.int() - streamed.int()).abs().max() <= tolerance
