import pytest
import torch
from torch import nn

from egapipe.stages.distill.students.wide_resnet import PreactivationBlock, WideResNet, wrn_40_2


def test_stage_outputs():
    maps = torch.randn(2, 3, 32, 32)
    shapes = []
    for layer in wrn_40_2().layers[:4]:  # type: ignore[attr-defined]
        maps = layer(maps)
        shapes.append(list(maps.shape[1:]))
    assert shapes == [[16, 32, 32], [32, 32, 32], [64, 16, 16], [128, 8, 8]]


def test_forty_layers():
    """38 of 3x3, as the classifier and a shortcut beside the others are counted too."""
    convolutions = [m for m in wrn_40_2().modules() if isinstance(m, nn.Conv2d)]
    assert sum(m.kernel_size == (3, 3) for m in convolutions) == 1 + 3 * 6 * 2
    assert sum(m.kernel_size == (1, 1) for m in convolutions) == 3


def test_a_block_that_keeps_the_shape_carries_its_input_as_it_is():
    block = PreactivationBlock(16, 16, 1)
    nn.init.zeros_(block.conv2.weight)
    maps = torch.randn(2, 16, 8, 8)
    assert torch.equal(block(maps), maps)


def test_a_block_that_changes_the_shape_carries_its_activated_input():
    block = PreactivationBlock(16, 32, 2)
    nn.init.zeros_(block.conv2.weight)
    maps = torch.randn(2, 16, 8, 8)
    carried = block.shortcut(torch.relu(block.norm1(maps)))
    assert torch.equal(block(maps), carried)


@pytest.mark.parametrize("depth", [4, 20, 41])
def test_a_depth_between_the_family_is_refused(depth):
    with pytest.raises(ValueError, match="6 n"):
        WideResNet(depth, 2)
