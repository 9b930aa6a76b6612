"""MobileNetV2 (Sandler et al. 2018, table 2).

As in the CRD benchmark (Tian et al. 2020): the second stage keeps the resolution, so that the whole
divides by 16; the first block has its 1x1 expansion too, by 1; ReLU is not capped at 6.
"""

from functools import partial
from typing import cast

from torch import Tensor, nn

from egapipe.stages.distill.students.backbone import Backbone
from egapipe.stages.distill.students.layers import conv_norm, kaiming_by_fan_out, stage

STAGES = (
    # expansion, outputs at width 1, blocks, stride
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
LAST = 1280


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise 3x3, linear 1x1; the input is added where the shape stays."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.adds = stride == 1 and inputs == outputs
        self.layers = nn.Sequential(
            *conv_norm(inputs, inner, 1).append(nn.ReLU()),
            *conv_norm(inner, inner, 3, stride, groups=inner).append(nn.ReLU()),
            *conv_norm(inner, outputs, 1),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """[B, inputs, H, W] to [B, outputs, H / stride, W / stride]."""
        branch = self.layers(maps)
        return cast(Tensor, maps + branch if self.adds else branch)


class MobileNetV2(Backbone):
    """Float images [B, 3, H, W] to features [B, 1280]; maps of H / 16 x W / 16.

    width: multiplies the channels of stem and stages; the last layer keeps its 1280. Convolutions
    start Kaiming-normal by fan-out, batch norms at the identity.
    """

    def __init__(self, width: float) -> None:
        super().__init__()
        self.num_features = LAST
        inputs = int(32 * width)
        self.layers = conv_norm(3, inputs, 3, 2).append(nn.ReLU())
        for expansion, channels, blocks, stride in STAGES:
            outputs = int(channels * width)
            block = partial(InvertedResidual, expansion=expansion)
            self.layers.append(stage(block, inputs, outputs, stride, blocks))
            inputs = outputs
        self.layers.extend(conv_norm(inputs, LAST, 1).append(nn.ReLU()))
        kaiming_by_fan_out(self)

    def maps(self, images: Tensor) -> Tensor:
        """Float [B, 3, H, W] to [B, 1280, H / 16, W / 16]."""
        return cast(Tensor, self.layers(images))


def mobilenet_v2_half() -> MobileNetV2:
    """812,836 parameters with a classifier of 100 classes, 1280 features. Half width."""
    return MobileNetV2(0.5)
