"""What parameter counts do not show: strides, groups, shuffles and what skips a unit."""

import pytest
import torch
from torch import nn

from egapipe.stages.distill.students.shufflenet_v1 import ShuffleUnit, shufflenet_v1
from egapipe.stages.distill.students.shufflenet_v2 import ShuffleUnitV2, shufflenet_v2


def stage_shapes(student):
    maps = student.stem(torch.randn(2, 3, 32, 32))
    shapes = [list(maps.shape[1:])]
    for stage in student.stages:
        maps = stage(maps)
        shapes.append(list(maps.shape[1:]))
    return shapes


def test_stages_of_both():
    v1, v2 = shufflenet_v1(), shufflenet_v2()
    assert stage_shapes(v1) == [[24, 32, 32], [240, 16, 16], [480, 8, 8], [960, 4, 4]]
    assert stage_shapes(v2) == [[24, 32, 32], [116, 16, 16], [232, 8, 8], [464, 4, 4]]
    assert [len(stage) for stage in v1.stages] == [len(stage) for stage in v2.stages] == [4, 8, 4]


def test_only_the_stems_channels_are_not_grouped():
    units = [unit for stage in shufflenet_v1().stages for unit in stage]  # type: ignore[attr-defined]
    assert [unit.groups for unit in units] == [1] + [3] * 15
    assert {unit.expand[0].groups for unit in units} == {3}


def test_every_input_reaches_every_output_of_a_unit():
    """Without the shuffle a group's outputs would see that group's inputs alone."""
    torch.manual_seed(0)
    unit = ShuffleUnit(60, 60, 1).eval()
    with torch.no_grad():
        unit.spatial[1].bias += 10  # no ReLU hides a path
        unit.reduce[1].bias += 10
        unit.expand[1].bias += 10
    jacobian = torch.autograd.functional.jacobian(
        lambda pixel: unit(pixel.view(1, 60, 1, 1)).flatten(), torch.rand(60)
    )
    reached = (jacobian - torch.eye(60)).abs() > 1e-9
    groups = reached.view(3, 20, 3, 20).any(dim=3).any(dim=1)
    assert groups.all()


def test_at_stride_two_the_mean_of_the_input_is_appended():
    unit = ShuffleUnit(24, 240, 2)
    maps = torch.rand(2, 24, 8, 8)
    appended = unit(maps)[:, -24:]
    torch.testing.assert_close(appended, nn.AvgPool2d(3, 2, padding=1)(maps))


def test_half_of_the_channels_pass_a_second_versions_unit():
    unit = ShuffleUnitV2(116, 116, 1)
    maps = torch.randn(2, 116, 8, 8)
    assert torch.equal(unit(maps)[:, ::2], maps[:, :58])
    assert not torch.equal(unit(maps)[:, 1::2], maps[:, 58:])


def test_at_stride_two_both_branches_see_everything():
    unit = ShuffleUnitV2(24, 116, 2)
    assert unit.short[0].in_channels == unit.long[0].in_channels == 24
    assert unit(torch.randn(2, 24, 8, 8)).shape == (2, 116, 4, 4)


@pytest.mark.parametrize("make", [shufflenet_v1, shufflenet_v2])
def test_channels_stay_last_in_memory(make) -> None:
    """Else every unit would lay its maps out anew; the values are the same either way."""
    network = make().eval()
    images = torch.randn(2, 3, 32, 32)
    wanted = network(images)
    network.to(memory_format=torch.channels_last)
    orders = []
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_pre_hook(
                lambda _, given: orders.append(given[0].stride(1) == 1)
            )
    found = network(images.contiguous(memory_format=torch.channels_last))
    assert all(orders)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
