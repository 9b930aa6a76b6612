"""What the students are built of."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution that keeps H and W at stride 1; without bias, for a batch norm follows it."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)


def conv_norm(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """`conv`, then batch norm."""
    return nn.Sequential(conv(inputs, outputs, kernel, stride, groups), nn.BatchNorm2d(outputs))


def stage(
    block: Callable[[int, int, int], nn.Module], inputs: int, outputs: int, stride: int, blocks: int
) -> nn.Sequential:
    """`blocks` blocks (inputs, outputs, stride), of which the first changes the shape."""
    first = block(inputs, outputs, stride)
    return nn.Sequential(first, *(block(outputs, outputs, 1) for _ in range(blocks - 1)))


def shuffle_channels(maps: Tensor, groups: int) -> Tensor:
    """[B, C, H, W] with the channels of each group dealt out in turn (Zhang et al. 2018, fig. 1c).

    Keeps the order in memory: torch's own leaves channels last on a GPU.
    """
    if not maps.is_contiguous(memory_format=torch.channels_last):
        return functional.channel_shuffle(maps, groups)
    last = maps.permute(0, 2, 3, 1)
    shuffled: Tensor = last.unflatten(3, (groups, -1)).transpose(3, 4).flatten(3)
    return shuffled.permute(0, 3, 1, 2)


def last_linear(network: nn.Module) -> str:
    """The place of a network's last linear layer, which in the zoos is its classifier; empty
    without any."""
    linear = [path for path, part in network.named_modules() if isinstance(part, nn.Linear)]
    return linear[-1] if linear else ""


def kaiming_by_fan_out(network: nn.Module) -> None:
    """Draws every convolution's weights from N(0, 2 / (k^2 outputs)); biases become 0 (He 2015)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
