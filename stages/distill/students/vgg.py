"""VGG (Simonyan & Zisserman 2015) with batch norm and without its fully connected layers.

As in the CRD benchmark (Tian et al. 2020): the last block is followed by the mean instead of
maximum and classifier layers; convolutions keep their bias.
"""

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from egapipe.stages.distill.students.backbone import Backbone
from egapipe.stages.distill.students.layers import kaiming_by_fan_out


class Vgg(Backbone):
    """Float images [B, 3, H, W] to features [B, 512]; maps of H / 2^pools x W / 2^pools.

    layers: 3x3 convolutions in each block. pools: how many blocks, from the first on, are followed
    by a 2x2 maximum; the benchmark takes 3 for 32 x 32 images and 4 for 64 x 64. Raises ValueError
    for a number of pools out of [0, 4]. Convolutions start Kaiming-normal by fan-out.
    """

    def __init__(self, layers: Sequence[int], pools: int) -> None:
        super().__init__()
        if not 0 <= pools < len(WIDTHS):
            raise ValueError(f"pools must be in [0, {len(WIDTHS) - 1}], it is {pools}")
        self.num_features = WIDTHS[-1]
        self.blocks = nn.Sequential()
        for i, (inputs, outputs) in enumerate(zip((3, *WIDTHS), WIDTHS, strict=False)):
            block = _block(inputs, outputs, layers[i])
            self.blocks.append(block.append(nn.MaxPool2d(2)) if i < pools else block)
        kaiming_by_fan_out(self)

    def maps(self, images: Tensor) -> Tensor:
        """Float [B, 3, H, W] to [B, 512, H / 2^pools, W / 2^pools]."""
        return cast(Tensor, self.blocks(images))


WIDTHS = (64, 128, 256, 512, 512)


def _block(inputs: int, outputs: int, layers: int) -> nn.Sequential:
    block = nn.Sequential()
    for i in range(layers):
        convolution = nn.Conv2d(outputs if i else inputs, outputs, 3, padding=1)
        block.extend([convolution, nn.BatchNorm2d(outputs), nn.ReLU()])
    return block


def vgg8(pools: int = 3) -> Vgg:
    """3,965,028 parameters with a classifier of 100 classes, 512 features. pools: see `Vgg`."""
    return Vgg((1, 1, 1, 1, 1), pools)


def vgg13(pools: int = 3) -> Vgg:
    """9,462,180 parameters with a classifier of 100 classes, 512 features. pools: see `Vgg`."""
    return Vgg((2, 2, 2, 2, 2), pools)
