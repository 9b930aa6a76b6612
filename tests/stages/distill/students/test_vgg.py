import pytest
import torch
from torch import nn

from egapipe.stages.distill.students.vgg import Vgg, vgg8, vgg13


def layers_of(student, kind):
    return [len([part for part in block if isinstance(part, kind)]) for block in student.blocks]


@pytest.mark.parametrize(("student", "layers"), [(vgg8(), 1), (vgg13(), 2)])
def test_five_blocks_of_one_or_two_layers(student, layers):
    assert layers_of(student, nn.Conv2d) == [layers] * 5
    assert layers_of(student, nn.MaxPool2d) == [1, 1, 1, 0, 0]


def test_a_fourth_maximum_for_larger_images():
    images = torch.randn(1, 3, 64, 64)
    assert vgg8().maps(images).shape[2:] == (8, 8)
    assert vgg8(pools=4).maps(images).shape[2:] == (4, 4)


def test_convolutions_have_a_bias_that_starts_at_zero():
    convolutions = [part for part in vgg8().modules() if isinstance(part, nn.Conv2d)]
    assert all(not part.bias.any() for part in convolutions)


@pytest.mark.parametrize("pools", [-1, 5])
def test_other_numbers_of_maxima_are_refused(pools):
    with pytest.raises(ValueError, match=r"pools must be in \[0, 4\]"):
        Vgg((1, 1, 1, 1, 1), pools)
