"""Decoded images of one size, or arrays of one shape, as a memory-mapped array in the node's cache.

Decoding costs seconds that every trial would pay again; the array is made once per node under a
lock, renamed into place, and shared by all processes through the page cache.
"""

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from egapipe.pipeline.datasets import Dataset
from egapipe.pipeline.datasets.kinds.arrays.stored import Arrays
from egapipe.pipeline.disk.arrays import mapped_npy
from egapipe.pipeline.disk.caches import PIXELS, build_once
from egapipe.pipeline.disk.files import read_json_object, whole_file
from egapipe.pipeline.disk.paths import cache_dir
from egapipe.pipeline.errors import EgapipeError, ImageError, UsageError

Pixels = npt.NDArray[np.uint8]


class SizeMismatchError(EgapipeError):
    """The images are not all of one size."""


@dataclass(frozen=True)
class DecodedRows:
    """values: uint8 [N, H, W, 3] of images, [N, V, *shape] of arrays, read-only. unreadable: row ->
    reason; such rows are zeros."""

    values: npt.NDArray[Any]
    unreadable: dict[int, str]


class Decoding(Protocol):
    """How the rows of a data set become numbers of one shape and type."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its numbers."""
        ...

    def decoded(self, row: int) -> npt.NDArray[Any]:
        """Of one row. Raises ImageError, SizeMismatchError."""
        ...


def decoded_images(
    dataset: Dataset, content: str | None = None, folder: Path | None = None
) -> DecodedRows:
    """Every image of a data set, decoded once per node.

    content: what stands for keys and images, where somebody has read them for that already.
    Raises SizeMismatchError when the images are not all as large as the first readable one.
    """
    return _decoded_once(dataset, content, folder, lambda: _OfImages(dataset), np.dtype(np.uint8))


def decoded_arrays(
    dataset: Dataset, arrays: Arrays, content: str | None = None, folder: Path | None = None
) -> DecodedRows:
    """Every array of a data set with all its variants, read once per node; see `decoded_images`."""
    kind = np.dtype(arrays.type.dtype)
    # The same bytes may be read as variants, or as one array.
    known = f"{content or dataset.fingerprint()}:{kind}:{arrays.variants}:{arrays.type.shape}"
    return _decoded_once(dataset, known, folder, lambda: _OfArrays(dataset, arrays), kind)


class _OfImages:
    """See `Decoding`."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset, self._size = dataset, first_size(dataset)
        self.shape, self.dtype = (*self._size, 3), np.dtype(np.uint8)

    def decoded(self, row: int) -> npt.NDArray[Any]:
        """See `Decoding`."""
        image, (height, width) = self._dataset.image(row), self._size
        if (image.height, image.width) != self._size:
            raise SizeMismatchError(
                f"image {self._dataset.keys[row]} is {image.width} x {image.height} pixels, "
                f"others are {width} x {height}"
            )
        return np.asarray(image)


class _OfArrays:
    """See `Decoding`."""

    def __init__(self, dataset: Dataset, arrays: Arrays) -> None:
        self._dataset = dataset
        self.shape = (arrays.variants, *arrays.type.shape)
        self.dtype: np.dtype[Any] = np.dtype(arrays.type.dtype)

    def decoded(self, row: int) -> npt.NDArray[Any]:
        """See `Decoding`."""
        return self._dataset.array(row)


def _decoded_once(
    dataset: Dataset,
    content: str | None,
    folder: Path | None,
    decoding: Callable[[], Decoding],
    dtype: np.dtype[Any],
) -> DecodedRows:
    name = hashlib.sha256(
        f"{content or dataset.fingerprint()}:{len(dataset)}".encode()
    ).hexdigest()[:32]
    array = PIXELS.file(folder or cache_dir(), name)
    record = array.with_suffix(".json")
    return build_once(
        PIXELS,
        array,
        lambda: _known(len(dataset), dtype, array, record),
        lambda temporary: _decode(len(dataset), decoding(), temporary, record),
    )


def _known(rows: int, dtype: np.dtype[Any], array: Path, record: Path) -> DecodedRows | None:
    """None if they are not there, or damaged."""
    try:
        values = mapped_npy(array)
        reasons = read_json_object(record)
        unreadable = {int(row): str(why) for row, why in reasons.items()}
    except (ValueError, UsageError):
        return None
    whole = values.dtype == dtype and values.ndim > 1 and len(values) == rows
    return DecodedRows(values, unreadable) if whole else None


def _decode(rows: int, decoding: Decoding, temporary: Path, record: Path) -> None:
    """Fill the array, then write the record, without which the array does not count."""
    values = np.lib.format.open_memmap(
        temporary, mode="w+", dtype=decoding.dtype, shape=(rows, *decoding.shape)
    )

    def put(row: int) -> tuple[int, str] | None:
        try:
            values[row] = decoding.decoded(row)
        except ImageError as error:
            return row, str(error)
        return None

    with ThreadPoolExecutor(2) as pool:
        unreadable = dict(filter(None, pool.map(put, range(rows))))
    values.flush()
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
