"""Resizing by matrices against Pillow: the tolerance of each filter."""

import numpy as np
import pytest
import torch
from PIL import Image

from egapipe.pipeline.mathematics.resampling import FILTERS, cropped_weights, resized, weights


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def by_pillow(image: np.ndarray, height: int, width: int, name: str) -> np.ndarray:
    resample = Image.Resampling[name.upper()]
    return np.asarray(Image.fromarray(image).resize((width, height), resample)).astype(int)


def ours(image: np.ndarray, height: int, width: int, name: str) -> np.ndarray:
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    rows, columns = (torch.tensor([length]) for length in image.shape[:2])
    across = weights(columns, image.shape[1], width, name)
    down = weights(rows, image.shape[0], height, name)
    return resized(pixels, across, down)[0].permute(1, 2, 0).numpy().astype(int)


def smooth(height: int, width: int, seed: int) -> np.ndarray:
    """As photographs are: neighbours are alike."""
    coarse = Image.fromarray(noise(6, 6, seed))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).copy()


@pytest.mark.parametrize("name", FILTERS)
def test_images_of_any_size_are_resized_as_by_pillow(name: str) -> None:
    """Pillow takes columns first where that is less work, which rounds otherwise in between."""
    rng = np.random.default_rng(1)
    for seed in range(40):
        height, width, tall, wide = rng.integers(8, 90, 4).tolist()
        image = smooth(height, width, seed)
        difference = np.abs(ours(image, tall, wide, name) - by_pillow(image, tall, wide, name))
        assert (difference > 1).mean() < 0.01
        assert difference.mean() < 0.3


@pytest.mark.parametrize("name", ["bilinear", "hamming"])
def test_no_image_differs_by_more_than_two_grey_levels(name: str) -> None:
    """Of filters without negative weights; those of the others amplify what is rounded between."""
    rng = np.random.default_rng(1)
    for seed in range(40):
        height, width, tall, wide = rng.integers(1, 90, 4).tolist()
        image = noise(height, width, seed)
        difference = np.abs(ours(image, tall, wide, name) - by_pillow(image, tall, wide, name))
        assert difference.max() <= 2


@pytest.mark.parametrize("name", FILTERS)
def test_a_photograph_that_shrinks_is_within_two_grey_levels(name: str) -> None:
    image = smooth(375, 500, seed=0)
    difference = np.abs(ours(image, 256, 341, name) - by_pillow(image, 256, 341, name))
    assert difference.max() <= 2


@pytest.mark.parametrize("name", FILTERS)
def test_a_crop_is_a_part_of_the_whole_and_black_outside(name: str) -> None:
    image = noise(31, 40)
    whole = ours(image, 20, 26, name)
    for top, left, tall, wide in [(3, 5, 10, 12), (-4, -2, 28, 30), (0, 0, 20, 26)]:
        pixels = torch.zeros(2, 3, 48, 48)
        pixels[0, :, :31, :40] = torch.from_numpy(image).permute(2, 0, 1)
        down = cropped_weights(*map(torch.tensor, ([31, 0], [20, 0], [top, 0])), 48, tall, name)  # type: ignore[call-arg]
        across = cropped_weights(*map(torch.tensor, ([40, 0], [26, 0], [left, 0])), 48, wide, name)  # type: ignore[call-arg]
        found, empty = resized(pixels, across, down).permute(0, 2, 3, 1).numpy().astype(int)
        outside = np.pad(whole, ((9, 9), (9, 9), (0, 0)))
        expected = outside[top + 9 : top + 9 + tall, left + 9 : left + 9 + wide]
        assert np.abs(found - expected).max() <= 1
        # Of a row without an image.
        assert not empty.any()
