"""Views of rows that all lie on the device: drawn on the host as whole numbers, made there."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from egapipe.pipeline.config.data import ViewsConfig
from egapipe.pipeline.views import Hashes, margins, view_boxes
from egapipe.stages.distill.data.inputs.arrays import ResidentArrays, variant_numbers
from egapipe.stages.distill.data.inputs.crops import crop_and_resize, crop_within
from egapipe.stages.distill.data.inputs.images import ResidentImages

Ints = npt.NDArray[np.int64]


class DrawnViews(Protocol):
    """Views of rows under one plan.

    columns: numbers that are drawn for a row.
    """

    columns: int

    def draw(self, hashes: Hashes, k: Ints) -> Sequence[npt.NDArray[np.generic]]:
        """View `k` of each row, of keys with such hashes: that many columns, [B] each."""
        ...

    def make(self, rows: Tensor, drawn: Tensor) -> Tensor:
        """The views, [B, ...], of rows, int64 [B], drawn as int64 [B, columns]."""
        ...


class Crops:
    """Crops of images. See `DrawnViews`."""

    columns = 6

    def __init__(self, images: Sequence[ResidentImages], plan: ViewsConfig) -> None:
        """images: those of each source, behind each other, all of one size."""
        self._plan = plan
        self._source, self._size = images[0].source, images[0].frame.size
        self._margin = margins(plan, self._source)
        self._canvas = joined([part.canvas(self._margin) for part in images])
        turned = plan.turns > 1 and self._size[0] != self._size[1]
        self._resized = plan.crop == "scale" or tuple(self._source) != self._size or turned

    def draw(self, hashes: Hashes, k: Ints) -> Sequence[npt.NDArray[np.generic]]:
        """See `DrawnViews`: box, flip, turns."""
        boxes = view_boxes(self._plan, hashes, k, self._source[None])
        return (*boxes.box.T, boxes.flip, boxes.turns)

    def make(self, rows: Tensor, drawn: Tensor) -> Tensor:
        """uint8 [B, 3, H, W]. See `DrawnViews`."""
        box, flip = drawn[:, :4], drawn[:, 4] > 0
        turns = drawn[:, 5] if self._plan.turns > 1 else None
        make = crop_and_resize if self._resized else crop_within
        return make(self._canvas, rows, box, flip, self._size, self._margin, turns)


class Variants:
    """Ready-made variants of arrays. See `DrawnViews`."""

    columns = 1

    def __init__(self, arrays: Sequence[ResidentArrays], plan: ViewsConfig) -> None:
        """arrays: those of each source, behind each other, of one shape."""
        self._plan = plan
        self._values = joined([part.values for part in arrays])

    def draw(self, hashes: Hashes, k: Ints) -> Sequence[npt.NDArray[np.generic]]:
        """See `DrawnViews`: the number of the variant."""
        return (variant_numbers(self._plan, hashes, k, self._values.shape[1]),)

    def make(self, rows: Tensor, drawn: Tensor) -> Tensor:
        """[B, *shape]. See `DrawnViews`."""
        return self._values[rows, drawn[:, 0]]


def drawn_views(parts: Sequence[ResidentImages | ResidentArrays], plan: ViewsConfig) -> DrawnViews:
    """Of all sources, each of its rows on the device."""
    images = [part for part in parts if isinstance(part, ResidentImages)]
    if images:
        return Crops(images, plan)
    return Variants([part for part in parts if isinstance(part, ResidentArrays)], plan)


def bytes_beside(part: ResidentImages | ResidentArrays, plan: ViewsConfig) -> int:
    """Bytes that `drawn_views` takes on the device for a source, beside what is there."""
    if isinstance(part, ResidentArrays):
        return 0
    around = margins(plan, part.source)
    height, width = part.source + 2 * np.array(around)
    return int(len(part) * height * width * 3) if around != (0, 0) else 0


def joined(tensors: list[Tensor]) -> Tensor:
    """All of them behind each other; a single one as it is."""
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)
