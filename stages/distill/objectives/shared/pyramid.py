"""A feature pyramid over levels of maps, with pyramid pooling on the coarsest."""

from collections.abc import Sequence
from math import gcd

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from egapipe.stages.distill.objectives.shared.averages import averaged_maps

SCALES = (1, 2, 3, 6)
"""Sides of the grids that the coarsest level is pooled to."""
GROUPS = 32


class Pyramid(nn.Module):
    """Maps [B, C_l, h_l, w_l], from fine to coarse, to maps of one width and the same sizes.

    On the coarsest level pyramid pooling (Zhao et al. 2017), from which the others follow top-down
    (Lin et al. 2017), with normalisation and ReLU behind each convolution. It is group
    normalisation (Wu and He 2018), which knows one image, and not batch normalisation: what a row
    becomes depends neither on the rows it meets nor on the worker that has it.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        """channels: C_l. width: of what comes out."""
        super().__init__()
        *finer, coarsest = channels
        self.pooling = Pooling(coarsest, width)
        self.laterals = nn.ModuleList(_block(given, width, 1) for given in finer)
        self.outputs = nn.ModuleList(_block(width, width, 3) for _ in finer)

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """[B, width, h_l, w_l] of each level, from fine to coarse."""
        *finer, coarsest = levels
        above = self.pooling(coarsest)
        found = [above]
        ways = zip(self.laterals, self.outputs, finer, strict=True)
        for lateral, output, level in reversed(list(ways)):
            above = lateral(level) + F.interpolate(above, size=level.shape[2:])
            found.append(output(above))
        return found[::-1]


class Pooling(nn.Module):
    """Means over grids of several sides, beside the maps that they are of."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(_block(channels, width, 1) for _ in SCALES)
        self.output = _block(channels + len(SCALES) * width, width, 3)

    def forward(self, maps: Tensor) -> Tensor:
        """[B, channels, h, w] to [B, width, h, w]."""
        height, width = maps.shape[2:]
        parts = [maps]
        for side, stage in zip(SCALES, self.stages, strict=True):
            pooled = averaged_maps(maps, (min(side, height), min(side, width)))
            parts.append(F.interpolate(stage(pooled), size=(height, width)))
        joined: Tensor = self.output(torch.cat(parts, dim=1))
        return joined


def _block(given: int, wanted: int, side: int) -> nn.Sequential:
    conv = nn.Conv2d(given, wanted, side, padding=side // 2, bias=False)
    # A group of one channel would be one number where there is one place.
    groups = gcd(GROUPS, wanted) if wanted > GROUPS else 1
    return nn.Sequential(conv, nn.GroupNorm(groups, wanted), nn.ReLU())
