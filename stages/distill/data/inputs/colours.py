"""Colours of many images at once, changed by factors that their keys draw."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from egapipe.pipeline.config.augment import JitterConfig
from egapipe.pipeline.views import Hashes, further_draws

Ints = npt.NDArray[np.int64]

ONE = 1 << 16
"""A factor of 1: they are whole numbers of parts, so that they travel with rows and boxes."""
FACTORS = 3
_PLACE = 0
"""Of the first of four draws among `further_draws`."""


def jitter_factors(jitter: JitterConfig, seed: int, hashes: Hashes, k: Ints) -> Ints:
    """Factors of brightness, contrast and saturation of view `k` of each key, int64 [N, 3], 1 where
    an image is left as it is. A pure function of (seed, key, k)."""
    u = further_draws(seed, hashes, k, _PLACE, FACTORS + 1)
    far = np.array([jitter.brightness, jitter.contrast, jitter.saturation])
    low, high = np.maximum(0.0, 1.0 - far), 1.0 + far
    factors = np.rint((low + u[:, :FACTORS] * (high - low)) * ONE).astype(np.int64)
    factors[u[:, FACTORS] >= jitter.probability] = ONE
    return factors


def jittered(images: Tensor, factors: Tensor) -> Tensor:
    """Images, uint8 [B, 3, H, W], with their brightness, then contrast, then saturation changed.

    factors: int64 [B, 3] of `jitter_factors`. As PIL's ImageEnhance, whose rounding in between may
    make a grey level of difference. The result is rounded once.
    """
    by = (factors.float() / ONE)[:, :, None, None, None].unbind(1)
    bright = (images.float() * by[0]).clamp(0, 255)
    mean = _grey(bright).mean(dim=(2, 3), keepdim=True)
    contrasted = (mean + (bright - mean) * by[1]).clamp(0, 255)
    grey = _grey(contrasted)
    coloured = (grey + (contrasted - grey) * by[2]).clamp(0, 255)
    return (coloured + 0.5).floor().to(torch.uint8)


def _grey(pixels: Tensor) -> Tensor:
    """The luma of ITU-R 601, [B, 1, H, W]."""
    red, green, blue = pixels.split(1, dim=1)
    luma: Tensor = 0.299 * red + 0.587 * green + 0.114 * blue
    return luma
