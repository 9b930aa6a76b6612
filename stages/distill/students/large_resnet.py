"""Residual networks for large images (He et al. 2016, table 1): a stem that divides by four.

A bottleneck's stride is in its 3x3 convolution, as is usual since Goyal et al. 2017.
"""

from collections.abc import Callable, Sequence
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from egapipe.stages.distill.students.backbone import Backbone
from egapipe.stages.distill.students.layers import conv_norm, kaiming_by_fan_out, stage
from egapipe.stages.distill.students.resnet import BasicBlock, projection


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions at a quarter of the width, and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        inner = outputs // 4
        self.reduce = conv_norm(inputs, inner, 1)
        self.spatial = conv_norm(inner, inner, 3, stride)
        self.expand = conv_norm(inner, outputs, 1)
        self.shortcut = projection(inputs, outputs, stride)

    def forward(self, maps: Tensor) -> Tensor:
        """[B, inputs, H, W] to [B, outputs, H / stride, W / stride]."""
        inner = F.relu(self.spatial(F.relu(self.reduce(maps))))
        return F.relu(self.expand(inner) + self.shortcut(maps))


class LargeResNet(Backbone):
    """Float images [B, 3, H, W] to features [B, widths[-1]]; maps of H / 32 x W / 32.

    block: of (inputs, outputs, stride). blocks, widths: of the four stages. Convolutions start
    Kaiming-normal by fan-out, batch norms at the identity. Meant for images from 64 x 64 on, and
    wrong in bfloat16 on a CPU below 32 x 32: there torch 2.13 leaves parts of the weights' gradient
    uninitialised where a 3x3 convolution of stride 2 meets a 1x1 map.
    """

    def __init__(
        self,
        block: Callable[[int, int, int], nn.Module],
        blocks: Sequence[int],
        widths: Sequence[int],
    ) -> None:
        super().__init__()
        self.num_features = widths[-1]
        self.stem = conv_norm(3, 64, 7, 2).extend([nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)])
        self.stages = nn.Sequential()
        shapes = zip((64, *widths[:-1]), widths, (1, 2, 2, 2), blocks, strict=True)
        for inputs, outputs, stride, count in shapes:
            self.stages.append(stage(block, inputs, outputs, stride, count))
        kaiming_by_fan_out(self)

    def maps(self, images: Tensor) -> Tensor:
        """Float [B, 3, H, W] to [B, num_features, H / 32, W / 32]."""
        return cast(Tensor, self.stages(self.stem(images)))


def resnet18() -> LargeResNet:
    """11,689,512 parameters with a classifier of 1000 classes, 512 features."""
    return LargeResNet(BasicBlock, (2, 2, 2, 2), (64, 128, 256, 512))


def resnet50() -> LargeResNet:
    """25,557,032 parameters with a classifier of 1000 classes, 2048 features."""
    return LargeResNet(Bottleneck, (3, 4, 6, 3), (256, 512, 1024, 2048))
