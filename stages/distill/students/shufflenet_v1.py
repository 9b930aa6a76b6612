"""ShuffleNet (Zhang et al. 2018): grouped 1x1 convolutions, channels shuffled between them.

As in the CRD benchmark (Tian et al. 2020), for small images: the stem is a 1x1 convolution that
keeps the resolution, a branch's inner width is a quarter of that branch's own outputs (the paper:
of the unit's), and a ReLU follows the depthwise convolution (the paper: none).
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from egapipe.stages.distill.students.backbone import Backbone
from egapipe.stages.distill.students.layers import conv_norm, shuffle_channels, stage

GROUPS = 3
STEM = 24
WIDTHS = (240, 480, 960)
BLOCKS = (4, 8, 4)


class ShuffleUnit(nn.Module):
    """Grouped 1x1, shuffle, depthwise 3x3, grouped 1x1; figure 2b at stride 1, 2c at stride 2.

    At stride 1 the input is added; at stride 2 its 3x3 mean is appended, and inputs < outputs.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        branch = outputs if stride == 1 else outputs - inputs
        inner = branch // 4
        # So few channels as the stem's are not grouped (section 3.2).
        self.groups = 1 if inputs == STEM else GROUPS
        self.reduce = conv_norm(inputs, inner, 1, groups=self.groups)
        self.spatial = conv_norm(inner, inner, 3, stride, groups=inner)
        self.expand = conv_norm(inner, branch, 1, groups=GROUPS)

    def forward(self, maps: Tensor) -> Tensor:
        """[B, inputs, H, W] to [B, outputs, H / stride, W / stride]."""
        inner = shuffle_channels(F.relu(self.reduce(maps)), self.groups)
        branch = self.expand(F.relu(self.spatial(inner)))
        if self.stride == 1:
            return F.relu(branch + maps)
        return F.relu(torch.cat([branch, F.avg_pool2d(maps, 3, self.stride, padding=1)], dim=1))


class ShuffleNetV1(Backbone):
    """Float images [B, 3, H, W] to features [B, 960]; maps of H / 8 x W / 8.

    Weights start as torch draws them, as in the benchmark.
    """

    def __init__(self) -> None:
        super().__init__()
        self.num_features = WIDTHS[-1]
        self.stem = conv_norm(3, STEM, 1).append(nn.ReLU())
        self.stages = nn.Sequential()
        for inputs, outputs, blocks in zip((STEM, *WIDTHS), WIDTHS, BLOCKS, strict=False):
            self.stages.append(stage(ShuffleUnit, inputs, outputs, 2, blocks))

    def maps(self, images: Tensor) -> Tensor:
        """Float [B, 3, H, W] to [B, 960, H / 8, W / 8]."""
        return cast(Tensor, self.stages(self.stem(images)))


def shufflenet_v1() -> ShuffleNetV1:
    """949,258 parameters with a classifier of 100 classes, 960 features. Three groups."""
    return ShuffleNetV1()
