"""Wide residual networks (Zagoruyko & Komodakis 2016): few layers, many channels."""

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from egapipe.stages.distill.students.backbone import Backbone
from egapipe.stages.distill.students.layers import conv, kaiming_by_fan_out, stage


class PreactivationBlock(nn.Module):
    """Batch norm and ReLU come before each of two 3x3 convolutions (He et al. 2016b).

    Where the shape changes, the shortcut is a 1x1 convolution of the activated input.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv(inputs, outputs, 3, stride)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = conv(outputs, outputs, 3)
        same = stride == 1 and inputs == outputs
        self.shortcut = None if same else conv(inputs, outputs, 1, stride)

    def forward(self, maps: Tensor) -> Tensor:
        """[B, inputs, H, W] to [B, outputs, H / stride, W / stride]."""
        active = F.relu(self.norm1(maps))
        inner = F.relu(self.norm2(self.conv1(active)))
        carried = maps if self.shortcut is None else self.shortcut(active)
        return cast(Tensor, self.conv2(inner) + carried)


class WideResNet(Backbone):
    """Float images [B, 3, H, W] to features [B, 64 * widen]; maps of H / 4 x W / 4.

    depth: 6 n + 4, for n blocks a stage. Raises ValueError for other depths. Without dropout, as in
    the CRD benchmark. Convolutions start Kaiming-normal by fan-out, batch norms at the identity.
    """

    def __init__(self, depth: int, widen: int) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 4, 6)
        if rest or blocks < 1:
            raise ValueError(f"depth must be 6 n + 4 with n >= 1, it is {depth}")
        self.num_features = 64 * widen
        self.layers = nn.Sequential(
            conv(3, 16, 3),
            stage(PreactivationBlock, 16, 16 * widen, 1, blocks),
            stage(PreactivationBlock, 16 * widen, 32 * widen, 2, blocks),
            stage(PreactivationBlock, 32 * widen, 64 * widen, 2, blocks),
            nn.BatchNorm2d(64 * widen),
            nn.ReLU(),
        )
        kaiming_by_fan_out(self)

    def maps(self, images: Tensor) -> Tensor:
        """Float [B, 3, H, W] to [B, num_features, H / 4, W / 4]."""
        return cast(Tensor, self.layers(images))


def wrn_40_2() -> WideResNet:
    """2,255,156 parameters with a classifier of 100 classes, 128 features."""
    return WideResNet(40, 2)
