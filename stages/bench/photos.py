"""Image files with natural content, without a download."""

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images


def save_photos(folder: Path, count: int, size: tuple[int, int], suffix: str) -> None:
    """Crops (height, width) of scikit-learn's two photographs, none like another.

    suffix: jpg (quality 90) or png.
    """
    folder.mkdir()
    photos = load_sample_images().images
    rng = np.random.default_rng(0)
    height, width = size
    for row in range(count):
        photo = photos[row % len(photos)]
        top = rng.integers(photo.shape[0] - height + 1)
        left = rng.integers(photo.shape[1] - width + 1)
        crop = photo[top : top + height, left : left + width]
        Image.fromarray(crop).save(folder / f"{row:05d}.{suffix}", quality=90)
