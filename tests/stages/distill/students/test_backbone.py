"""Feature maps: the same method of every student."""

import pytest
import torch
from torch import nn

from egapipe.pipeline.errors import UsageError
from egapipe.stages.distill.students import (
    REGISTRY,
    GivesMaps,
    build_student,
    maps_and_features,
    tap_shapes,
)

SIDES_OF_96 = {
    "digits_cnn": 48,
    "mobilenet_v2_half": 6,
    "resnet8": 24,
    "resnet8x4": 24,
    "resnet18": 3,
    "resnet20": 24,
    "resnet32x4": 24,
    "resnet50": 3,
    "shufflenet_v1": 12,
    "shufflenet_v2": 12,
    "vgg8": 12,
    "vgg13": 12,
    "wrn_40_2": 24,
}


@pytest.mark.parametrize("name", REGISTRY)
def test_features_are_the_mean_of_the_maps(name):
    torch.manual_seed(0)
    student = build_student(name, {}).eval()
    images = torch.randn(2, 3, 96, 96)
    assert isinstance(student, GivesMaps)
    with torch.no_grad():
        maps, features = maps_and_features(student, images)
        assert torch.equal(features, student(images))
    assert maps.shape == (2, student.num_features, SIDES_OF_96[name], SIDES_OF_96[name])
    torch.testing.assert_close(features, maps.flatten(2).mean(dim=2))


@pytest.mark.parametrize("name", REGISTRY)
def test_shape_of_the_maps(name):
    student = build_student(name, {})
    state = {name: value.clone() for name, value in student.state_dict().items()}
    side = SIDES_OF_96[name]
    assert tap_shapes(student, ["maps"], 96)["maps"] == (student.num_features, side, side)
    assert student.training
    assert all(torch.equal(value, state[name]) for name, value in student.state_dict().items())


def test_maps_may_be_oblong():
    assert tap_shapes(build_student("resnet8", {}), ["maps"], (32, 16))["maps"] == (64, 8, 4)


class Own(nn.Module):
    """A network of the user's: maps of another number of channels than its features."""

    def __init__(self, grid=lambda images: images):
        super().__init__()
        self.grid = grid

    def maps(self, images):
        return self.grid(images)

    def pool(self, maps):
        return maps.amax(dim=(2, 3)).repeat(1, 2)

    def forward(self, images):
        return self.pool(self.maps(images))


def test_a_network_of_the_users_own_may_give_maps():
    images = torch.randn(2, 3, 4, 5)
    maps, features = maps_and_features(Own(), images)
    assert torch.equal(maps, images)
    assert torch.equal(features, Own()(images))
    assert tap_shapes(Own(), ["maps"], (4, 5))["maps"] == (3, 4, 5)


def test_a_network_without_maps_is_told_what_it_lacks():
    with pytest.raises(UsageError, match=r"Linear gives no feature maps: .* maps\(images\)") as e:
        maps_and_features(nn.Linear(3, 3), torch.zeros(1, 3))
    assert "\n" not in str(e.value)
    with pytest.raises(UsageError, match="Flatten gives no feature maps"):
        tap_shapes(nn.Flatten(), ["maps"], 8)["maps"]


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (lambda images: images.flatten(2), r"Own on images \[2, 3, 4, 4\] fails: IndexError"),
        (lambda images: images.long(), "gives no floating maps"),
        (lambda images: images.view(7), "fails: RuntimeError"),
    ],
)
def test_maps_that_are_none_are_refused(grid, message):
    with pytest.raises(UsageError, match=message):
        tap_shapes(Own(grid), ["maps"], 4)["maps"]
