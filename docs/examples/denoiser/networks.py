"""A U-Net that takes noise off images, and the frozen teacher that becomes of it."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

WIDTHS = (16, 32, 64, 64)
"""Channels at 32, 16, 8 and 4 places a side."""


class Denoiser(nn.Module):
    """Normalised images with noise [B, 3, 32, 32] to those without. `up.0` gives maps
    [B, 64, 8, 8], `up.1` [B, 32, 16, 16], `up.2` [B, 16, 32, 32]."""

    def __init__(self) -> None:
        super().__init__()
        given = (3, *WIDTHS)
        self.down = nn.ModuleList(
            _block(a, b, stride) for a, b, stride in zip(given, WIDTHS, (1, 2, 2, 2), strict=False)
        )
        ways = zip(WIDTHS[:0:-1], WIDTHS[-2::-1], strict=True)
        self.up = nn.ModuleList(_block(below + beside, beside, 1) for below, beside in ways)
        self.last = nn.Conv2d(WIDTHS[0], 3, 3, padding=1)

    def forward(self, noisy: Tensor) -> Tensor:
        """What it takes for noise is taken away."""
        levels = [noisy]
        for block in self.down:
            levels.append(block(levels[-1]))
        maps = levels.pop()
        for block in self.up:
            beside = levels.pop()
            maps = block(torch.cat([F.interpolate(maps, size=beside.shape[2:]), beside], dim=1))
        denoised: Tensor = noisy - self.last(maps)
        return denoised


class WithNoise(nn.Module):
    """A denoiser that is shown each image behind one and the same noise."""

    def __init__(self, denoiser: Denoiser, noise: float) -> None:
        """noise: its standard deviation, that of the images being 1."""
        super().__init__()
        self.denoiser = denoiser
        drawn = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(0))
        self.register_buffer("noise", noise * drawn)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images [B, 3, 32, 32] to those that it makes of them."""
        denoised: Tensor = self.denoiser(images + self.noise)
        return denoised


def teacher(weights: str | Path, noise: float) -> WithNoise:
    """With the weights that `run.py` has trained."""
    denoiser = Denoiser()
    denoiser.load_state_dict(load_file(weights))
    return WithNoise(denoiser, noise)


def _block(given: int, wanted: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(given, wanted, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.GroupNorm(8, wanted), nn.SiLU())
