"""Crops, flips and resizing of many images at once, on whatever device they lie.

Nothing here looks at a value, makes a tensor from Python numbers or loops over images: on a GPU
these are a few kernels that a CUDA graph can record.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from egapipe.pipeline.mathematics.resampling import resized, weights

Size = tuple[int, int]


def crop(
    canvas: Tensor, index: Tensor, box: Tensor, flip: Tensor, size: Size, margin: Size = (0, 0)
) -> Tensor:
    """Crop boxes that all have one size, zeros outside the image, then flip.

    canvas: uint8 [N, H + 2 my, W + 2 mx, 3], images with margins of (my, mx) zeros. index: int64
    [B] into N. box: int64 [B, 4] = top, left, height, width in pixels of the image. flip: bool [B].
    Returns uint8 [B, 3, h, w] of the given size (h, w), channels last in memory.
    """
    y, x = _places(box, flip, size, margin)
    inside = _inside(y, canvas.shape[1])[:, :, None] & _inside(x, canvas.shape[2])[:, None, :]
    return (_pixels(canvas, index, y, x) * inside[..., None]).permute(0, 3, 1, 2)


def crop_within(
    canvas: Tensor, index: Tensor, box: Tensor, flip: Tensor, size: Size, margin: Size
) -> Tensor:
    """`crop` of boxes that nowhere leave the canvas: wide margins spare the mask."""
    y, x = _places(box, flip, size, margin)
    return _pixels(canvas, index, y, x).permute(0, 3, 1, 2)


def crop_and_resize(
    canvas: Tensor, index: Tensor, box: Tensor, flip: Tensor, size: Size, margin: Size = (0, 0)
) -> Tensor:
    """Crop boxes of any size within H x W, zeros outside the image, flip, and resize to `size`.

    As `crop`; the filter is PIL's bilinear one with antialiasing: a triangle as wide as the scale,
    cut off at the box, across first and rounded, then down and rounded. Differs from PIL by one
    grey level here and there, by two at most. Returns uint8 [B, 3, *size].
    """
    full = (canvas.shape[1] - 2 * margin[0], canvas.shape[2] - 2 * margin[1])
    views = crop(canvas, index, box, torch.zeros_like(flip), full, margin).float()
    across = weights(box[:, 3], full[1], size[1])
    across = torch.where(flip[:, None, None], across.flip(1), across)
    return resized(views, across, weights(box[:, 2], full[0], size[0]))


def pad(pixels: Tensor, margin: Size) -> Tensor:
    """uint8 [N, H, W, 3] with margins of (my, mx) zeros; as it is for margins of 0."""
    if margin == (0, 0):
        return pixels
    return F.pad(pixels, (0, 0, margin[1], margin[1], margin[0], margin[0]))


def _places(box: Tensor, flip: Tensor, size: Size, margin: Size) -> tuple[Tensor, Tensor]:
    """Rows [B, h] and columns [B, w] of the canvas that each box shows."""
    y = _span(box[:, 0], size[0], margin[0])
    x = _span(box[:, 1], size[1], margin[1])
    return y, torch.where(flip[:, None], x.flip(1), x)


def _span(start: Tensor, length: int, margin: int) -> Tensor:
    """[B, length] positions on the canvas from each start on."""
    return start[:, None] + torch.arange(margin, margin + length, device=start.device)


def _pixels(canvas: Tensor, index: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """uint8 [B, h, w, 3]; positions outside the canvas are those of its border."""
    height, width = canvas.shape[1:3]
    rows = index[:, None] * height + y.clamp(0, height - 1)
    flat = rows[:, :, None] * width + x.clamp(0, width - 1)[:, None, :]
    return canvas.view(-1, 3)[flat]


def _inside(position: Tensor, length: int) -> Tensor:
    return (position >= 0) & (position < length)
