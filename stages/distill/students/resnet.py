"""Small residual networks for 32 x 32 images (He et al. 2016, section 4.2).

Widths and initialisation are those of the CRD benchmark (Tian et al. 2020).
"""

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from egapipe.stages.distill.students.backbone import Backbone
from egapipe.stages.distill.students.layers import conv, conv_norm, kaiming_by_fan_out, stage


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(inputs, outputs, 3, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = conv(outputs, outputs, 3)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = projection(inputs, outputs, stride)

    def forward(self, maps: Tensor) -> Tensor:
        """[B, inputs, H, W] to [B, outputs, H / stride, W / stride]."""
        inner = F.relu(self.bn1(self.conv1(maps)))
        return F.relu(self.bn2(self.conv2(inner)) + self.shortcut(maps))


def projection(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """A shortcut: empty, or a 1x1 convolution where the shape changes."""
    same = stride == 1 and inputs == outputs
    return nn.Sequential() if same else conv_norm(inputs, outputs, 1, stride)


class ResNet(Backbone):
    """Float images [B, 3, H, W] to features [B, widths[-1]]; maps of H / 4 x W / 4.

    depth: 6 n + 2, for n blocks a stage. widths: channels of the stem and of the three stages, of
    which the second and third halve the resolution. Raises ValueError for other depths or numbers
    of widths. Convolutions start Kaiming-normal by fan-out, batch norms at the identity.
    """

    def __init__(self, depth: int, widths: Sequence[int]) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 2, 6)
        if rest or blocks < 1:
            raise ValueError(f"depth must be 6 n + 2 with n >= 1, it is {depth}")
        stem, *stages = widths
        if len(stages) != 3:
            raise ValueError(f"widths are those of the stem and three stages, got {list(widths)}")
        self.num_features = stages[-1]
        self.stem = conv_norm(3, stem, 3).append(nn.ReLU())
        self.stages = nn.Sequential()
        for inputs, outputs, stride in zip(widths, stages, (1, 2, 2), strict=False):
            self.stages.append(stage(BasicBlock, inputs, outputs, stride, blocks))
        kaiming_by_fan_out(self)

    def maps(self, images: Tensor) -> Tensor:
        """Float [B, 3, H, W] to [B, num_features, H / 4, W / 4]."""
        return cast(Tensor, self.stages(self.stem(images)))


THIN = (16, 16, 32, 64)
WIDE = (32, 64, 128, 256)


def resnet8() -> ResNet:
    """83,892 parameters with a classifier of 100 classes, 64 features."""
    return ResNet(8, THIN)


def resnet20() -> ResNet:
    """278,324 parameters with a classifier of 100 classes, 64 features."""
    return ResNet(20, THIN)


def resnet8x4() -> ResNet:
    """1,233,540 parameters with a classifier of 100 classes, 256 features."""
    return ResNet(8, WIDE)


def resnet32x4() -> ResNet:
    """7,433,860 parameters with a classifier of 100 classes, 256 features."""
    return ResNet(32, WIDE)
