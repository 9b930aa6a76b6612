"""Pillow's resizing with antialiasing as products with matrices: batches, on any device.

A filter is as wide as the scale, cut off at the image; rows across come first and are rounded to
whole grey levels, then columns. Nothing here looks at a value or loops over images.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def _triangle(x: Tensor) -> Tensor:
    return (1 - x).clamp(min=0)


def _cubic(x: Tensor) -> Tensor:
    """Keys' with a = -0.5."""
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def _lanczos(x: Tensor) -> Tensor:
    return torch.where(x < 3, torch.sinc(x) * torch.sinc(x / 3), torch.zeros_like(x))


def _hamming(x: Tensor) -> Tensor:
    window = 0.54 + 0.46 * torch.cos(torch.pi * x)
    return torch.where(x < 1, torch.sinc(x) * window, torch.zeros_like(x))


# By Pillow's name; of distances in output pixels, none of which is negative.
FILTERS: dict[str, Callable[[Tensor], Tensor]] = {
    "bilinear": _triangle,
    "bicubic": _cubic,
    "lanczos": _lanczos,
    "hamming": _hamming,
}


def weights(length: Tensor, full: int, out: int, resample: str = "bilinear") -> Tensor:
    """Weights [B, out, full] of `full` positions, of which the first `length` [B] count, that bring
    those to `out`."""
    scale = (length / out)[:, None, None]
    centre = (torch.arange(out, device=length.device) + 0.5)[:, None] * scale
    return _normalised(centre, scale, length, full, resample)


def cropped_weights(
    length: Tensor, resized: Tensor, start: Tensor, full: int, out: int, resample: str
) -> Tensor:
    """As `weights`, for `out` positions from `start` [B] on of an image that `resized` [B] would be
    long; outside of that they are zero. A length may be 0: then all are."""
    scale = (length / resized.clamp(min=1))[:, None, None]
    place = start[:, None] + torch.arange(out, device=length.device)
    centre = (place + 0.5)[:, :, None] * scale
    found = _normalised(centre, scale, length, full, resample)
    inside = (place >= 0) & (place < resized[:, None]) & (length[:, None] > 0)
    return torch.where(inside[:, :, None], found, torch.zeros_like(found))


def resized(pixels: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """Bring images, whole numbers as float32 [B, 3, H, W], to uint8 [B, 3, h, w].

    across: [B, w, W]. down: [B, h, H]. Differs from Pillow by a grey level here and there; by more
    in less than 1 % of the numbers of an image, where Pillow takes columns first.
    """
    batch, _, height, width = pixels.shape
    # [B, 3H, W] times [B, W, w], then [B, h, H] times [B, H, w] of each channel.
    wide = pixels.reshape(batch, -1, width) @ across.mT
    wide = rounded(wide).view(batch, 3, height, across.shape[1])
    return rounded(down[:, None] @ wide).to(torch.uint8)


def _normalised(centre: Tensor, scale: Tensor, length: Tensor, full: int, resample: str) -> Tensor:
    place = torch.arange(full, device=length.device)
    weight = FILTERS[resample]((place + 0.5 - centre).abs() / scale.clamp(min=1))
    weight = weight * (place < length[:, None, None])
    return weight / weight.sum(dim=2, keepdim=True)


def rounded(pixels: Tensor) -> Tensor:
    """The nearest whole grey levels."""
    # Halves go up, as in PIL, and so does what a rounding error makes a little less than a half:
    # they are common (the mean of two pixels), and another device has other errors.
    return (pixels + (0.5 + 2.0**-10)).floor().clamp(0, 255)
