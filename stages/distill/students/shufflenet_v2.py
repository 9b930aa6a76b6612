"""ShuffleNetV2 at width 1 (Ma et al. 2018, table 5).

As in the CRD benchmark (Tian et al. 2020), for small images: the stem is a 1x1 convolution that
keeps the resolution, without the maximum after it.
"""

from typing import cast

import torch
from torch import Tensor, nn

from egapipe.stages.distill.students.backbone import Backbone
from egapipe.stages.distill.students.layers import conv_norm, shuffle_channels, stage

STEM = 24
WIDTHS = (116, 232, 464)
BLOCKS = (4, 8, 4)
LAST = 1024


class ShuffleUnitV2(nn.Module):
    """Two branches of half the outputs each, then a shuffle of the two; figure 3c, at stride 2 3d.

    At stride 1 each branch takes half of the channels and one is left as it is; at stride 2 both
    take all of them.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        half = outputs // 2
        taken = inputs if stride == 2 else half
        self.short = nn.Sequential()
        if stride == 2:
            self.short = _depthwise(inputs, half, stride)
        self.long = (
            conv_norm(taken, half, 1).append(nn.ReLU()).extend(_depthwise(half, half, stride))
        )

    def forward(self, maps: Tensor) -> Tensor:
        """[B, inputs, H, W] to [B, outputs, H / stride, W / stride]."""
        short, long = maps.chunk(2, dim=1) if self.stride == 1 else (maps, maps)
        return shuffle_channels(torch.cat([self.short(short), self.long(long)], dim=1), 2)


def _depthwise(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    spatial = conv_norm(inputs, inputs, 3, stride, groups=inputs)
    return spatial.extend(conv_norm(inputs, outputs, 1)).append(nn.ReLU())


class ShuffleNetV2(Backbone):
    """Float images [B, 3, H, W] to features [B, 1024]; maps of H / 8 x W / 8.

    Weights start as torch draws them, as in the benchmark.
    """

    def __init__(self) -> None:
        super().__init__()
        self.num_features = LAST
        self.stem = conv_norm(3, STEM, 1).append(nn.ReLU())
        self.stages = nn.Sequential()
        for inputs, outputs, blocks in zip((STEM, *WIDTHS), WIDTHS, BLOCKS, strict=False):
            self.stages.append(stage(ShuffleUnitV2, inputs, outputs, 2, blocks))
        self.last = conv_norm(WIDTHS[-1], LAST, 1).append(nn.ReLU())

    def maps(self, images: Tensor) -> Tensor:
        """Float [B, 3, H, W] to [B, 1024, H / 8, W / 8]."""
        return cast(Tensor, self.last(self.stages(self.stem(images))))


def shufflenet_v2() -> ShuffleNetV2:
    """1,355,528 parameters with a classifier of 100 classes, 1024 features."""
    return ShuffleNetV2()
