"""Crops, flips and resizing of many images at once, on whatever device they lie.

Nothing here looks at a value, makes a tensor from Python numbers or loops over images: on a GPU
these are a few kernels that a CUDA graph can record.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from egapipe.pipeline.mathematics.resampling import resized, weights

Size = tuple[int, int]


def crop(
    canvas: Tensor,
    index: Tensor,
    box: Tensor,
    flip: Tensor,
    size: Size,
    margin: Size = (0, 0),
    turns: Tensor | None = None,
) -> Tensor:
    """Crop boxes that are all seen in one size, zeros outside the image, then flip, then turn.

    canvas: uint8 [N, H + 2 my, W + 2 mx, 3], images with margins of (my, mx) zeros. index: int64
    [B] into N. box: int64 [B, 4] = top, left, height, width in pixels of the image. flip: bool [B].
    turns: int64 [B], quarters against the clock; None turns nothing. Returns uint8 [B, 3, h, w] of
    the given size (h, w), channels last in memory.
    """
    down, across = _places(canvas, box, flip, turns, size, margin)
    inside = down.inside[:, :, None] & across.inside[:, None, :]
    return (_pixels(canvas, index, down, across) * inside[..., None]).permute(0, 3, 1, 2)


def crop_within(
    canvas: Tensor,
    index: Tensor,
    box: Tensor,
    flip: Tensor,
    size: Size,
    margin: Size,
    turns: Tensor | None = None,
) -> Tensor:
    """`crop` of boxes that nowhere leave the canvas: wide margins spare the mask."""
    down, across = _places(canvas, box, flip, turns, size, margin)
    return _pixels(canvas, index, down, across).permute(0, 3, 1, 2)


def crop_and_resize(
    canvas: Tensor,
    index: Tensor,
    box: Tensor,
    flip: Tensor,
    size: Size,
    margin: Size = (0, 0),
    turns: Tensor | None = None,
) -> Tensor:
    """Crop boxes of any size within H x W, zeros outside the image, flip, turn and resize.

    As `crop`; the filter is PIL's bilinear one with antialiasing: a triangle as wide as the scale,
    cut off at the box, across first and rounded, then down and rounded. Differs from PIL by one
    grey level here and there, by two at most. Returns uint8 [B, 3, *size].
    """
    full = (canvas.shape[1] - 2 * margin[0], canvas.shape[2] - 2 * margin[1])
    if turns is None:
        views = crop(canvas, index, box, torch.zeros_like(flip), full, margin).float()
        across = weights(box[:, 3], full[1], size[1])
        across = torch.where(flip[:, None, None], across.flip(1), across)
        return resized(views, across, weights(box[:, 2], full[0], size[0]))
    # A box that lies on its side reaches as far down as the image reaches across.
    square = (max(full), max(full))
    views = crop(canvas, index, box, flip, square, margin, turns).float()
    aside = turns % 2 == 1
    height = torch.where(aside, box[:, 3], box[:, 2])
    width = torch.where(aside, box[:, 2], box[:, 3])
    return resized(views, weights(width, square[1], size[1]), weights(height, square[0], size[0]))


def pad(pixels: Tensor, margin: Size) -> Tensor:
    """uint8 [N, H, W, 3] with margins of (my, mx) zeros; as it is for margins of 0."""
    if margin == (0, 0):
        return pixels
    return F.pad(pixels, (0, 0, margin[1], margin[1], margin[0], margin[0]))


class _Places(NamedTuple):
    """Where one side of a view lies, int64 [B, length] each: offset into the canvas of an image as
    one row of pixels, what the other side adds left out; asked: the same, where the canvas does not
    reach so far beyond it."""

    offset: Tensor
    asked: Tensor

    @property
    def inside(self) -> Tensor:
        """bool [B, length]: whether the canvas reaches so far."""
        return self.offset == self.asked


def _places(
    canvas: Tensor, box: Tensor, flip: Tensor, turns: Tensor | None, size: Size, margin: Size
) -> tuple[_Places, _Places]:
    """Of the rows and of the columns of each view.

    Those of a view that lies on its side are columns and rows of the canvas.
    """
    upright = [_along(canvas, box, flip, turns, size[side], margin, side) for side in (0, 1)]
    if turns is None:
        return upright[0], upright[1]
    lying = [_along(canvas, box, flip, turns, size[1 - side], margin, side) for side in (1, 0)]
    aside = (turns % 2 == 1)[:, None]
    down, across = (
        _Places(*(torch.where(aside, one, other) for one, other in zip(lies, stands, strict=True)))
        for lies, stands in zip(lying, upright, strict=True)
    )
    return down, across


def _along(
    canvas: Tensor,
    box: Tensor,
    flip: Tensor,
    turns: Tensor | None,
    length: int,
    margin: Size,
    side: int,
) -> _Places:
    """Positions on one side of the canvas (0: rows, 1: columns), in the order in which a view shows
    them: backwards where flip and turns come to that."""
    at = torch.arange(length, device=box.device)
    backwards = _backwards(flip, turns, side)
    if backwards is not None:
        # Without turns all boxes are as long as what is seen of them.
        last = length - 1 if turns is None else box[:, 2 + side, None] - 1
        at = torch.where(backwards[:, None], last - at, at)
    stride = canvas.shape[2] if side == 0 else 1
    asked = (at + box[:, side, None] + margin[side]) * stride
    return _Places(asked.clamp(0, (canvas.shape[1 + side] - 1) * stride), asked)


def _backwards(flip: Tensor, turns: Tensor | None, side: int) -> Tensor | None:
    """bool [B]: whether a view shows that side of the canvas from its end; None: none does."""
    if turns is None:
        return flip if side == 1 else None
    return turns >= 2 if side == 0 else flip ^ ((turns == 1) | (turns == 2))


def _pixels(canvas: Tensor, index: Tensor, down: _Places, across: _Places) -> Tensor:
    """uint8 [B, h, w, 3]; positions outside the canvas are those of its border."""
    height, width = canvas.shape[1:3]
    first = (index * height * width)[:, None] + down.offset
    return canvas.view(-1, 3)[first[:, :, None] + across.offset[:, None, :]]
