import pytest
import torch
from torch import nn

from egapipe.stages.distill.students.resnet import WIDE, ResNet, resnet8x4


def test_stage_outputs_of_resnet8x4():
    student = resnet8x4()
    maps = student.stem(torch.randn(2, 3, 32, 32))
    shapes = [list(maps.shape[1:])]
    for stage in student.stages:
        maps = stage(maps)
        shapes.append(list(maps.shape[1:]))
    assert shapes == [[32, 32, 32], [64, 32, 32], [128, 16, 16], [256, 8, 8]]
    assert student(torch.randn(2, 3, 32, 32)).shape == (2, 256)


def test_convolutions_start_kaiming_normal_by_fan_out():
    torch.manual_seed(0)
    for module in resnet8x4().modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            expected = (2 / fan_out) ** 0.5
            assert module.weight.std().item() == pytest.approx(expected, rel=0.1)


def test_shortcuts_are_convolutions_only_where_the_shape_changes():
    wide = [len(stage[0].shortcut) for stage in resnet8x4().stages]
    thin = [len(stage[0].shortcut) for stage in ResNet(8, (16, 16, 32, 64)).stages]
    assert wide == [2, 2, 2]
    assert thin == [0, 2, 2]


@pytest.mark.parametrize("depth", [2, 9, 18])
def test_a_depth_between_the_family_is_refused(depth):
    with pytest.raises(ValueError, match="6 n"):
        ResNet(depth, WIDE)


def test_a_wrong_number_of_widths_is_refused():
    with pytest.raises(ValueError, match="three stages"):
        ResNet(8, (16, 32, 64))
