"""Decoded images of one size as a memory-mapped array in the node's cache.

Decoding costs seconds that every trial would pay again; the array is made once per node under a
lock, renamed into place, and shared by all processes through the page cache.
"""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from egapipe.pipeline.datasets import Dataset
from egapipe.pipeline.disk.arrays import mapped_npy
from egapipe.pipeline.disk.caches import PIXELS, build_once
from egapipe.pipeline.disk.files import read_json_object, whole_file
from egapipe.pipeline.disk.paths import cache_dir
from egapipe.pipeline.errors import EgapipeError, ImageError, UsageError

Pixels = npt.NDArray[np.uint8]


class SizeMismatchError(EgapipeError):
    """The images are not all of one size."""


@dataclass(frozen=True)
class DecodedImages:
    """pixels: uint8 [N, H, W, 3], read-only. unreadable: row -> reason; such rows are zeros."""

    pixels: Pixels
    unreadable: dict[int, str]


def decoded_images(
    dataset: Dataset, content: str | None = None, folder: Path | None = None
) -> DecodedImages:
    """Every image of a data set, decoded once per node.

    content: what stands for keys and images, where somebody has read them for that already.
    Raises SizeMismatchError when the images are not all as large as the first readable one.
    """
    name = hashlib.sha256(
        f"{content or dataset.fingerprint()}:{len(dataset)}".encode()
    ).hexdigest()[:32]
    array = PIXELS.file(folder or cache_dir(), name)
    record = array.with_suffix(".json")
    return build_once(
        PIXELS,
        array,
        lambda: _known(len(dataset), array, record),
        lambda temporary: _decode(dataset, temporary, record),
    )


def _known(rows: int, array: Path, record: Path) -> DecodedImages | None:
    """None if they are not there, or damaged."""
    try:
        pixels: Pixels = mapped_npy(array)
        reasons = read_json_object(record)
        unreadable = {int(row): str(why) for row, why in reasons.items()}
    except (ValueError, UsageError):
        return None
    whole = pixels.dtype == np.uint8 and pixels.ndim == 4 and len(pixels) == rows
    return DecodedImages(pixels, unreadable) if whole else None


def _decode(dataset: Dataset, temporary: Path, record: Path) -> None:
    """Fill the array, then write the record, without which the array does not count."""
    shape = first_size(dataset)
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

    with ThreadPoolExecutor(2) as pool:
        unreadable = dict(filter(None, pool.map(put, range(len(dataset)))))
    pixels.flush()
    with whole_file(record) as file:
        file.write(json.dumps(unreadable).encode())


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
