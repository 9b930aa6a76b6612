"""Image files with natural content, without a download."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.datasets import load_sample_images


def save_photos(folder: Path, count: int, size: tuple[int, int], suffix: str) -> None:
    """Crops (height, width) of scikit-learn's two photographs, none like another; the photographs
    are enlarged where they have fewer pixels.

    suffix: jpg (quality 90) or png.
    """
    folder.mkdir()
    height, width = size
    photos = [_at_least(photo, height, width) for photo in load_sample_images().images]
    rng = np.random.default_rng(0)
    for row in range(count):
        photo = photos[row % len(photos)]
        top = rng.integers(photo.shape[0] - height + 1)
        left = rng.integers(photo.shape[1] - width + 1)
        crop = photo[top : top + height, left : left + width]
        Image.fromarray(crop).save(folder / f"{row:05d}.{suffix}", quality=90)


def _at_least(photo: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    factor = max(height / photo.shape[0], width / photo.shape[1])
    if factor <= 1:
        return photo
    sides = (round(photo.shape[1] * factor), round(photo.shape[0] * factor))
    return np.asarray(Image.fromarray(photo).resize(sides, Image.Resampling.LANCZOS))
