import pytest
import torch
from torch import nn

from egapipe.pipeline.errors import UsageError
from egapipe.stages.distill.students import build_student, feature_width


class Counting(nn.Module):
    """Writes a buffer and draws random numbers in every mode, as some networks do."""

    def __init__(self, mode):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.register_buffer("calls", torch.tensor(0))
        self.norm = nn.BatchNorm2d(3)
        self.frozen = nn.BatchNorm2d(3).eval()
        self.mode = mode

    def forward(self, images):
        if self.mode == "in place":
            self.calls += 1
        else:
            self.calls = self.calls + 1
        noise = torch.rand(len(images), 3)
        return (self.frozen(self.norm(images)).mean(dim=(2, 3)) + noise) * self.scale


class Gives(nn.Module):
    """Whatever a function makes of the images."""

    def __init__(self, function, **attributes):
        super().__init__()
        self.function = function
        self.__dict__.update(attributes)

    def forward(self, images):
        return self.function(images)


def test_width_of_a_registered_student():
    assert feature_width(build_student("resnet8", {}), 32) == 64


def test_images_may_be_oblong():
    assert feature_width(nn.Flatten(), (4, 6)) == 3 * 4 * 6


def test_other_float_types_get_their_own_images():
    assert feature_width(nn.Sequential(nn.Flatten(), nn.Linear(48, 5)).double(), 4) == 5


@pytest.mark.parametrize("mode", ["in place", "reassigned"])
def test_nothing_changes(mode):
    module = Counting(mode)
    state = {name: value.clone() for name, value in module.state_dict().items()}
    calls = module.calls
    random_state = torch.get_rng_state()
    assert feature_width(module, 4) == 3
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert module.calls is calls
    assert torch.equal(torch.get_rng_state(), random_state)
    assert (module.training, module.norm.training, module.frozen.training) == (True, True, False)
    assert module.scale.grad is None


def test_flags_come_back_after_a_failure_too():
    module = nn.Sequential(nn.BatchNorm2d(5), nn.Flatten())
    with pytest.raises(UsageError, match=r"images \[2, 3, 4, 4\] fails: RuntimeError"):
        feature_width(module, 4)
    assert module.training
    assert module[0].training


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda images: images, r"gives torch.float32 \[2, 3, 4, 4\]"),
        (lambda images: images.mean(dim=(1, 2, 3)), r"gives torch.float32 \[2\]"),
        (lambda images: images.flatten()[None], r"gives torch.float32 \[1, 96\]"),
        (lambda images: images.flatten(1)[:, :0], r"gives torch.float32 \[2, 0\]"),
        (lambda images: images.flatten(1).long(), r"gives torch.int64 \[2, 48\]"),
        (lambda images: (images.flatten(1),), "gives tuple: it must give one tensor"),
        (lambda images: {"features": images}, "gives dict: it must give one tensor"),
    ],
)
def test_an_output_that_is_no_features_is_refused(function, message):
    with pytest.raises(UsageError, match=message) as caught:
        feature_width(Gives(function), 4)
    assert "\n" not in str(caught.value)


def test_a_width_that_the_module_contradicts_is_refused():
    """As for a network from a model zoo that still has its classifier."""
    flatten = lambda images: images.flatten(1)  # noqa: E731
    assert feature_width(Gives(flatten, num_features=48), 4) == 48
    with pytest.raises(UsageError, match="gives 48 features but says num_features = 512"):
        feature_width(Gives(flatten, num_features=512), 4)
