"""Decoded images of one size as a memory-mapped array in the node's cache.

Decoding costs seconds that every trial would pay again; the array is made once per node under a
lock, renamed into place, and shared by all processes through the page cache.
"""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from egapipe.pipeline.datasets import Dataset
from egapipe.pipeline.errors import EgapipeError, ImageError
from egapipe.pipeline.paths import cache_dir

Pixels = npt.NDArray[np.uint8]


class SizeMismatchError(EgapipeError):
    """The images are not all of one size."""


@dataclass(frozen=True)
class DecodedImages:
    """pixels: uint8 [N, H, W, 3], read-only. unreadable: row -> reason; such rows are zeros."""

    pixels: Pixels
    unreadable: dict[int, str]


def decoded_images(dataset: Dataset, folder: Path | None = None) -> DecodedImages:
    """Every image of a data set, decoded once per node.

    Raises SizeMismatchError when the images are not all as large as the first readable one.
    """
    folder = (folder or cache_dir()) / "pixels"
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(f"{dataset.fingerprint()}:{len(dataset)}".encode()).hexdigest()[:32]
    array, record = folder / f"{name}.npy", folder / f"{name}.json"
    with FileLock(folder / f"{name}.lock"):
        if not array.exists():
            _decode(dataset, array, record)
    unreadable = {int(row): why for row, why in json.loads(record.read_text("utf-8")).items()}
    return DecodedImages(np.load(array, mmap_mode="r", allow_pickle=False), unreadable)


def _decode(dataset: Dataset, array: Path, record: Path) -> None:
    """Fill a temporary array, then the record, then rename: a killed run leaves no half array."""
    shape = first_size(dataset)
    temporary = array.with_suffix(".partial")
    pixels = np.lib.format.open_memmap(
        temporary, mode="w+", dtype=np.uint8, shape=(len(dataset), *shape, 3)
    )

    def put(row: int) -> tuple[int, str] | None:
        try:
            image = dataset.image(row)
        except ImageError as error:
            return row, str(error)
        if (image.height, image.width) != shape:
            raise SizeMismatchError(
                f"image {dataset.keys[row]} is {image.width} x {image.height} pixels, "
                f"others are {shape[1]} x {shape[0]}"
            )
        pixels[row] = np.asarray(image)
        return None

    try:
        with ThreadPoolExecutor(2) as pool:
            unreadable = dict(filter(None, pool.map(put, range(len(dataset)))))
        pixels.flush()
        record.write_text(json.dumps(unreadable), "utf-8")
        os.replace(temporary, array)
    finally:
        temporary.unlink(missing_ok=True)


def first_size(dataset: Dataset) -> tuple[int, int]:
    """(height, width) of the first readable image. Raises ImageError if there is none."""
    for row in range(len(dataset)):
        size = image_size(dataset, row)
        if size is not None:
            return size
    raise ImageError(f"{dataset.name} has no readable image")


def image_size(dataset: Dataset, row: int) -> tuple[int, int] | None:
    """(height, width) of an image, None if it cannot be read."""
    try:
        image = dataset.image(row)
    except ImageError:
        return None
    return image.height, image.width
