"""The student's images as uint8 batches: resident on the device, or decoded as needed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from egapipe.pipeline.config.data import ArrayType, ViewsConfig
from egapipe.pipeline.datasets import Dataset
from egapipe.pipeline.errors import ImageError
from egapipe.pipeline.views import CLEAN, Hashes, apply_view, settled, view_boxes
from egapipe.stages.distill.data.inputs.crops import Size, crop, crop_and_resize, pad
from egapipe.stages.distill.data.inputs.pixels import Pixels

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Frame:
    """What a student sees of an image: its size (height, width), and what becomes of clean images
    that have another shape, see `aspect` of `ViewsConfig`."""

    size: Size
    aspect: Literal["keep"] | None = None


class Images(Protocol):
    """Views of a data set's images at the student's resolution, or of its arrays.

    What is uint8 [B, 3, H, W] here is [B, *shape] of arrays, int64 or float32.
    """

    threads: int
    """Threads that may prepare batches ahead; 0 where preparing costs next to nothing."""

    @property
    def frame(self) -> Frame | ArrayType:
        """Of every view."""
        ...

    def clean(self, rows: Ints) -> Tensor:
        """The clean view of each row: uint8 [B, 3, H, W] on the device. Raises ImageError."""
        ...

    def batch(self, rows: Ints, plan: ViewsConfig, k: int | Ints) -> Tensor:
        """View `k` of each row under a plan: uint8 [B, 3, H, W] on the device.

        Raises ImageError if one of the images cannot be read.
        """
        ...


def readable(images: Images, rows: Ints) -> tuple[Ints, Tensor]:
    """Those of the rows, int64 [N], whose image can be read, and their clean views.

    The views are uint8 [B, 3, H, W], B <= N.
    """
    try:
        return rows, images.clean(rows)
    except ImageError:
        read = [(row, _one_image(images, row)) for row in rows]
    good = [(row, view) for row, view in read if view is not None]
    views = [view for _, view in good] or [_none(images.frame)]
    return np.array([row for row, _ in good], dtype=np.int64), torch.cat(views)


def _none(seen: Frame | ArrayType) -> Tensor:
    if isinstance(seen, Frame):
        return torch.empty(0, 3, *seen.size, dtype=torch.uint8)
    kind: torch.dtype = getattr(torch, seen.dtype)
    return torch.empty(0, *seen.shape, dtype=kind)


def _one_image(images: Images, row: np.int64) -> Tensor | None:
    try:
        return images.clean(np.array([row]))
    except ImageError:
        return None


class ResidentImages:
    """All images on the device; crops and flips are one gather."""

    threads = 0

    def __init__(
        self,
        pixels: Pixels,
        hashes: Hashes,
        frame: Frame,
        device: torch.device,
        unreadable: Mapping[int, str] | None = None,
    ) -> None:
        """pixels: uint8 [N, H, W, 3]. hashes: uint64 [N] of `key_hashes`.

        unreadable: row -> why it has no pixels.
        """
        self._unreadable = unreadable or {}
        self._pixels = torch.from_numpy(np.array(pixels)).to(device)
        self._hashes = hashes
        self.frame = frame
        self.source = np.array(pixels.shape[1:3])
        """Height and width of the images."""

    def __len__(self) -> int:
        return len(self._pixels)

    def clean(self, rows: Ints) -> Tensor:
        """The clean view of each row: uint8 [B, 3, H, W] on the device. Raises ImageError."""
        return self.batch(rows, settled(ViewsConfig(), self.frame.aspect), CLEAN)

    def batch(self, rows: Ints, plan: ViewsConfig, k: int | Ints) -> Tensor:
        """View `k` of each row: uint8 [B, 3, H, W] on the device. Raises ImageError."""
        self.check_readable(rows)
        boxes = view_boxes(plan, self._hashes[rows], k, self.source[None])
        device = self._pixels.device
        tensors = (rows, boxes.box, boxes.flip, boxes.turns)
        index, box, flip, turns = (torch.from_numpy(values).to(device) for values in tensors)
        make = crop if (boxes.sizes == self.frame.size).all() else crop_and_resize
        turned = turns if plan.turns > 1 else None
        return make(self._pixels, index, box, flip, self.frame.size, turns=turned)

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
        self,
        dataset: Dataset,
        hashes: Hashes,
        frame: Frame,
        device: torch.device,
        threads: int,
    ) -> None:
        self.threads = threads
        self._dataset = dataset
        self._hashes = hashes
        self.frame = frame
        self._device = device

    def clean(self, rows: Ints) -> Tensor:
        """The clean view of each row: uint8 [B, 3, H, W] on the device. Raises ImageError."""
        return self.batch(rows, settled(ViewsConfig(), self.frame.aspect), CLEAN)

    def batch(self, rows: Ints, plan: ViewsConfig, k: int | Ints) -> Tensor:
        """View `k` of each row: uint8 [B, 3, H, W] on the device. Raises ImageError."""
        # Entries of one row are behind each other: its image is decoded once.
        apart, places = np.unique(rows, return_inverse=True)
        decoded = [self._dataset.image(int(row)) for row in apart]
        images = [decoded[place] for place in places]
        sizes = np.array([(image.height, image.width) for image in images])
        boxes = view_boxes(plan, self._hashes[rows], k, sizes)
        views = [apply_view(image, boxes[i]) for i, image in enumerate(images)]
        pixels = np.stack([np.asarray(fitted(view, self.frame.size)) for view in views])
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
