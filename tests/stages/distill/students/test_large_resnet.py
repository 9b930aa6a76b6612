import pytest
import torch
from torch import nn

from egapipe.stages.distill.students.large_resnet import Bottleneck, resnet18, resnet50


@pytest.mark.parametrize(
    ("build", "widths"), [(resnet18, (64, 128, 256, 512)), (resnet50, (256, 512, 1024, 2048))]
)
def test_stage_outputs(build, widths):
    student = build().eval()
    with torch.no_grad():
        maps = student.stem(torch.randn(1, 3, 96, 96))
        assert maps.shape == (1, 64, 24, 24)
        for stage, width, side in zip(student.stages, widths, (24, 12, 6, 3), strict=True):
            maps = stage(maps)
            assert maps.shape == (1, width, side, side)


def test_eighteen_and_fifty_layers():
    """Without the shortcuts, and with a classifier."""
    for build, layers in ((resnet18, 18), (resnet50, 50)):
        modules = build().named_modules()
        convolutions = [n for n, m in modules if isinstance(m, nn.Conv2d) and "shortcut" not in n]
        assert len(convolutions) + 1 == layers


def test_the_3x3_convolution_of_a_bottleneck_has_its_stride():
    block = Bottleneck(256, 512, 2)
    assert block.spatial[0].kernel_size == (3, 3)
    assert [part[0].stride for part in (block.reduce, block.spatial, block.expand)] == [
        (1, 1),
        (2, 2),
        (1, 1),
    ]
