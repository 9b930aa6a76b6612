import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from egapipe.pipeline.errors import UsageError
from egapipe.stages.distill.students import REGISTRY, build_student, feature_width

FEATURES_AND_PARAMETERS = {
    # name: (features, classes, parameters with a linear classifier of so many classes)
    "resnet8": (64, 100, 83_892),
    "resnet20": (64, 100, 278_324),
    "resnet8x4": (256, 100, 1_233_540),
    "resnet32x4": (256, 100, 7_433_860),
    "vgg8": (512, 100, 3_965_028),
    "vgg13": (512, 100, 9_462_180),
    "shufflenet_v1": (960, 100, 949_258),
    "shufflenet_v2": (1024, 100, 1_355_528),
    "wrn_40_2": (128, 100, 2_255_156),
    "mobilenet_v2_half": (1280, 100, 812_836),
    "resnet18": (512, 1000, 11_689_512),
    "resnet50": (2048, 1000, 25_557_032),
    "digits_cnn": (64, 10, 57_130),
}


def test_every_student_is_counted():
    assert FEATURES_AND_PARAMETERS.keys() == REGISTRY.keys()


@pytest.mark.parametrize("name", REGISTRY)
def test_features_and_parameters_are_the_published_ones(name):
    """Of the CRD benchmark for 100 classes, of the papers' networks for the 1000 of ImageNet."""
    features, classes, parameters = FEATURES_AND_PARAMETERS[name]
    backbone = build_student(name, {})
    student = nn.Sequential(backbone, nn.Linear(features, classes))
    assert backbone.num_features == features
    assert sum(parameter.numel() for parameter in student.parameters()) == parameters


@pytest.mark.parametrize("name", [name for name in REGISTRY if name != "digits_cnn"])
def test_the_docstring_states_them(name):
    features, classes, parameters = FEATURES_AND_PARAMETERS[name]
    stated = (
        f"{parameters:,} parameters with a classifier of {classes} classes, {features} features"
    )
    assert REGISTRY[name].__doc__.startswith(stated)


@pytest.mark.parametrize("name", REGISTRY)
def test_every_student_trains_on_images_and_says_how_wide_it_is(name):
    student = build_student(name, {})
    features = student(torch.randn(4, 3, 8, 8))
    features.square().sum().backward()
    assert features.shape == (4, student.num_features)
    assert feature_width(student, 8) == student.num_features
    assert all(parameter.grad is not None for parameter in student.parameters())


@pytest.mark.parametrize("name", REGISTRY)
def test_images_of_any_size(name):
    student = build_student(name, {}).eval()
    with torch.no_grad():
        for height, width in ((32, 32), (64, 64), (96, 96), (33, 47)):
            features = student(torch.randn(1, 3, height, width))
            assert features.shape == (1, student.num_features)
            assert features.isfinite().all()


@pytest.mark.parametrize("name", REGISTRY)
def test_channels_last_gives_the_same_features(name):
    torch.manual_seed(0)
    student = build_student(name, {}).double().eval()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        expected = student(images)
        maps = student.to(memory_format=torch.channels_last).maps(
            images.contiguous(memory_format=torch.channels_last)
        )
    assert maps.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(student.pool(maps), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", REGISTRY)
def test_a_step_in_bfloat16_channels_last(name):
    torch.manual_seed(0)
    student = build_student(name, {}).to(memory_format=torch.channels_last)
    images = torch.randn(4, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        features = student(images)
    features.float().square().mean().backward()
    assert features.dtype == torch.bfloat16
    for parameter in student.parameters():
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all()


@pytest.mark.parametrize("name", REGISTRY)
def test_weights_come_back_from_safetensors(name):
    images = torch.randn(4, 3, 16, 16)
    student, other = build_student(name, {}), build_student(name, {})
    student(images)  # so that running means are not those of a new student
    other.load_state_dict(load(save(student.state_dict())))
    with torch.no_grad():
        assert torch.equal(student.eval()(images), other.eval()(images))


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
        ("vgg13", {"pools": 5}, r"student 'vgg13' cannot be built: ValueError: pools must be in"),
    ],
)
def test_wrong_arguments_are_the_users_mistake(name, args, message):
    with pytest.raises(UsageError, match=message):
        build_student(name, args)
