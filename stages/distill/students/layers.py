"""What the students are built of."""

from collections.abc import Callable

from torch import nn


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


def kaiming_by_fan_out(network: nn.Module) -> None:
    """Draws every convolution's weights from N(0, 2 / (k^2 outputs)); biases become 0 (He 2015)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
