"""The student's images as uint8 batches: resident on the device, or decoded as needed."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from egapipe.pipeline.config.data import ViewsConfig
from egapipe.pipeline.datasets import Dataset
from egapipe.pipeline.errors import ImageError
from egapipe.pipeline.views import CLEAN, Hashes, apply_view, view_boxes
from egapipe.stages.distill.data.crops import Size, crop, crop_and_resize, pad
from egapipe.stages.distill.data.pixels import Pixels

Ints = npt.NDArray[np.int64]


class Images(Protocol):
    """Views of a data set's images at the student's resolution."""

    threads: int
    """Threads that may prepare batches ahead; 0 where preparing costs next to nothing."""
    size: Size
    """Height and width of every view."""

    def batch(self, rows: Ints, plan: ViewsConfig, k: int | Ints) -> Tensor:
        """View `k` of each row under a plan: uint8 [B, 3, H, W] on the device.

        Raises ImageError if one of the images cannot be read.
        """
        ...


def readable(images: Images, rows: Ints) -> tuple[Ints, Tensor]:
    """Those of the rows, int64 [N], whose image can be read, and their clean views.

    The views are uint8 [B, 3, H, W], B <= N.
    """
    plan = ViewsConfig()
    try:
        return rows, images.batch(rows, plan, CLEAN)
    except ImageError:
        read = [(row, _one_image(images, row, plan)) for row in rows]
    good = [(row, view) for row, view in read if view is not None]
    views = [view for _, view in good] or [torch.empty(0, 3, *images.size, dtype=torch.uint8)]
    return np.array([row for row, _ in good], dtype=np.int64), torch.cat(views)


def _one_image(images: Images, row: np.int64, plan: ViewsConfig) -> Tensor | None:
    try:
        return images.batch(np.array([row]), plan, CLEAN)
    except ImageError:
        return None


class ResidentImages:
    """All images on the device; crops and flips are one gather."""

    threads = 0

    def __init__(
        self,
        pixels: Pixels,
        hashes: Hashes,
        size: Size,
        device: torch.device,
        unreadable: Mapping[int, str] | None = None,
    ) -> None:
        """pixels: uint8 [N, H, W, 3]. hashes: uint64 [N] of `key_hashes`. size: (H', W') wanted.

        unreadable: row -> why it has no pixels.
        """
        self._unreadable = unreadable or {}
        self._pixels = torch.from_numpy(np.array(pixels)).to(device)
        self._hashes = hashes
        self.size = size
        self.source = np.array(pixels.shape[1:3])
        """Height and width of the images."""

    def __len__(self) -> int:
        return len(self._pixels)

    def batch(self, rows: Ints, plan: ViewsConfig, k: int | Ints) -> Tensor:
        """View `k` of each row: uint8 [B, 3, H, W] on the device. Raises ImageError."""
        self.check_readable(rows)
        boxes = view_boxes(plan, self._hashes[rows], k, self.source[None])
        device = self._pixels.device
        tensors = (rows, boxes.box, boxes.flip)
        index, box, flip = (torch.from_numpy(values).to(device) for values in tensors)
        if (boxes.box[:, 2:] == self.size).all():
            return crop(self._pixels, index, box, flip, self.size)
        return crop_and_resize(self._pixels, index, box, flip, self.size)

    def canvas(self, margin: Size) -> Tensor:
        """uint8 [N, H + 2 my, W + 2 mx, 3] on the device: all images, with margins of zeros."""
        return pad(self._pixels, margin)

    def check_readable(self, rows: Ints) -> None:
        """Raise ImageError if one of the rows has no pixels."""
        for row in self._unreadable.keys() & set(rows.tolist()) if self._unreadable else ():
            raise ImageError(self._unreadable[row])


class StreamedImages:
    """Images decoded from the data set each time, by the loader's threads."""

    def __init__(
        self, dataset: Dataset, hashes: Hashes, size: Size, device: torch.device, threads: int
    ) -> None:
        self.threads = threads
        self._dataset = dataset
        self._hashes = hashes
        self.size = size
        self._device = device

    def batch(self, rows: Ints, plan: ViewsConfig, k: int | Ints) -> Tensor:
        """View `k` of each row: uint8 [B, 3, H, W] on the device. Raises ImageError."""
        images = [self._dataset.image(int(row)) for row in rows]
        sizes = np.array([(image.height, image.width) for image in images])
        boxes = view_boxes(plan, self._hashes[rows], k, sizes)
        views = [apply_view(image, boxes[i]) for i, image in enumerate(images)]
        pixels = np.stack([np.asarray(fitted(view, self.size)) for view in views])
        batch = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        if self._device.type == "cuda":
            batch = batch.pin_memory()
        return batch.to(self._device, non_blocking=True)


def fitted(image: Image.Image, size: Size) -> Image.Image:
    """An image, or a view of one, at the student's size (height, width); bilinear."""
    height, width = size
    if image.size == (width, height):
        return image
    return image.resize((width, height), Image.Resampling.BILINEAR)
