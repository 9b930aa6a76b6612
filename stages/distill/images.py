"""The student's images as uint8 batches: resident on the device, or decoded as needed."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from egapipe.pipeline.config.data import ViewsConfig
from egapipe.pipeline.datasets import Dataset
from egapipe.pipeline.errors import ImageError
from egapipe.pipeline.views import CLEAN, Boxes, Hashes, apply_view, view_boxes
from egapipe.stages.distill.pixels import Pixels

Ints = npt.NDArray[np.int64]
Size = tuple[int, int]


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
        self._source = np.array([pixels.shape[1:3]])

    def batch(self, rows: Ints, plan: ViewsConfig, k: int | Ints) -> Tensor:
        """View `k` of each row: uint8 [B, 3, H, W] on the device. Raises ImageError."""
        for row in self._unreadable.keys() & set(rows.tolist()) if self._unreadable else ():
            raise ImageError(self._unreadable[row])
        boxes = view_boxes(plan, self._hashes[rows], k, self._source)
        index = torch.from_numpy(rows).to(self._pixels.device)
        if (boxes.box[:, 2:] == self.size).all():
            return gather_crops(self._pixels, index, boxes, self.size)
        crops = (
            gather_crops(self._pixels, index[i : i + 1], _one(boxes, i), _shape(boxes, i))
            for i in range(len(boxes))
        )
        return torch.cat([resize(crop, self.size) for crop in crops])


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


def gather_crops(pixels: Tensor, index: Tensor, boxes: Boxes, size: Size) -> Tensor:
    """Crop boxes that all have one size, zeros outside the image, then flip.

    pixels: uint8 [N, H, W, 3]. index: int64 [B] into N. Returns uint8 [B, 3, h, w].
    """
    height, width = size
    box = torch.from_numpy(boxes.box).to(pixels.device)
    flip = torch.from_numpy(boxes.flip).to(pixels.device)
    y = box[:, :1] + torch.arange(height, device=pixels.device)
    x = torch.arange(width, device=pixels.device).expand(len(index), -1)
    x = box[:, 1:2] + torch.where(flip[:, None], width - 1 - x, x)
    inside_y, inside_x = _inside(y, pixels.shape[1]), _inside(x, pixels.shape[2])
    y, x = y.clamp(0, pixels.shape[1] - 1), x.clamp(0, pixels.shape[2] - 1)
    crops = pixels[index[:, None, None], y[:, :, None], x[:, None, :]]
    crops = crops * (inside_y[:, :, None] & inside_x[:, None, :])[..., None]
    return crops.permute(0, 3, 1, 2)


def resize(images: Tensor, size: Size) -> Tensor:
    """uint8 [B, 3, h, w] to [B, 3, *size], bilinear with antialiasing as in PIL."""
    if images.shape[-2:] == size:
        return images
    scaled = F.interpolate(images.float(), size=size, mode="bilinear", antialias=True)
    return scaled.round_().clamp_(0, 255).to(torch.uint8)


def _inside(position: Tensor, length: int) -> Tensor:
    return (position >= 0) & (position < length)


def _one(boxes: Boxes, i: int) -> Boxes:
    return Boxes(boxes.box[i : i + 1], boxes.flip[i : i + 1])


def _shape(boxes: Boxes, i: int) -> Size:
    view = boxes[i]
    return view.height, view.width
