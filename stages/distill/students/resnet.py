"""Small residual networks for 32 x 32 images (He et al. 2016, section 4.2).

Widths and initialisation are those of the CRD benchmark (Tian et al. 2020).
"""

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut.append(nn.Conv2d(inputs, outputs, 1, stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(outputs))

    def forward(self, maps: Tensor) -> Tensor:
        """[B, inputs, H, W] to [B, outputs, H / stride, W / stride]."""
        inner = F.relu(self.bn1(self.conv1(maps)))
        return F.relu(self.bn2(self.conv2(inner)) + self.shortcut(maps))


class ResNet(nn.Module):
    """Float images [B, 3, H, W] to features [B, widths[-1]].

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
        self.stem = nn.Sequential(
            nn.Conv2d(3, stem, 3, padding=1, bias=False), nn.BatchNorm2d(stem), nn.ReLU()
        )
        self.stages = nn.Sequential()
        for inputs, outputs, stride in zip(widths, stages, (1, 2, 2), strict=False):
            self.stages.append(_stage(inputs, outputs, stride, blocks))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Float [B, 3, H, W] to [B, num_features]."""
        maps = self.stages(self.stem(images))
        return cast(Tensor, maps.mean(dim=(2, 3)))


def _stage(inputs: int, outputs: int, stride: int, blocks: int) -> nn.Sequential:
    first = BasicBlock(inputs, outputs, stride)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)))


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
