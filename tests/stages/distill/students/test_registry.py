import pytest
import torch
from torch import nn

from egapipe.pipeline.errors import UsageError
from egapipe.stages.distill.students import REGISTRY, build_student, feature_width

PARAMETERS_WITH_100_CLASSES = {
    "resnet8": 83_892,
    "resnet20": 278_324,
    "resnet8x4": 1_233_540,
    "resnet32x4": 7_433_860,
}


@pytest.mark.parametrize("name", PARAMETERS_WITH_100_CLASSES)
def test_parameters_are_those_of_the_crd_benchmark(name):
    backbone = build_student(name, {})
    student = nn.Sequential(backbone, nn.Linear(backbone.num_features, 100))
    count = sum(parameter.numel() for parameter in student.parameters())
    assert count == PARAMETERS_WITH_100_CLASSES[name]


@pytest.mark.parametrize("name", REGISTRY)
def test_every_student_trains_on_images_and_says_how_wide_it_is(name):
    student = build_student(name, {})
    features = student(torch.randn(4, 3, 8, 8))
    features.square().sum().backward()
    assert features.shape == (4, student.num_features)
    assert feature_width(student, 8) == student.num_features
    assert all(parameter.grad is not None for parameter in student.parameters())


@pytest.mark.parametrize("name", REGISTRY)
def test_weights_depend_on_torchs_seed_alone(name):
    def weights(seed):
        torch.manual_seed(seed)
        return torch.cat([p.detach().flatten() for p in build_student(name, {}).parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@pytest.mark.parametrize(("wrong", "right"), [("resnet8x", "resnet8x4"), ("digits", "digits_cnn")])
def test_a_wrong_name_lists_the_valid_ones_and_the_nearest(wrong, right):
    with pytest.raises(UsageError) as caught:
        build_student(wrong, {})
    message = str(caught.value)
    assert f"no student '{wrong}', did you mean {right}?" in message
    assert all(name in message for name in REGISTRY)
    assert "\n" not in message


def test_arguments_reach_the_student():
    assert build_student("digits_cnn", {"width": 8}).num_features == 16


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("resnet8x4", {"depth": 20}, "student 'resnet8x4' .*unexpected keyword argument 'depth'"),
        ("digits_cnn", {"width": "wide"}, "student 'digits_cnn' cannot be built: TypeError"),
    ],
)
def test_wrong_arguments_are_the_users_mistake(name, args, message):
    with pytest.raises(UsageError, match=message):
        build_student(name, args)
