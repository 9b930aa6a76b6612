"""What is tapped of a student on the way to its features."""

import pytest
import torch
from torch import Tensor, nn

from egapipe.pipeline.errors import UsageError
from egapipe.stages.distill.students import Taps, build_student, tap_shapes


class Own(nn.Module):
    """A network of the user's: one part is called twice, one never, one gives several tensors, one
    none."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.act = nn.ReLU()
        self.unused = nn.Identity()
        self.lstm = nn.LSTM(4, 5, batch_first=True)
        self.table = Named()

    def forward(self, images: Tensor) -> Tensor:
        maps = self.act(self.conv(self.act(images)))
        frames, _ = self.lstm(maps.mean(dim=2).mT)
        return self.table(frames)["frames"].mean(dim=1)


class Named(nn.Module):
    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        return {"frames": frames}


def test_taps_are_what_submodules_give_and_the_features_stay() -> None:
    student, images = build_student("resnet8", {}), torch.randn(2, 3, 8, 8)
    student.eval()
    features, found = Taps(student, ["stages.0", "maps", "stem"]).run(images)
    assert torch.equal(features, student(images))
    stem = student.stem(images)
    assert torch.equal(found["stem"], stem)
    assert torch.equal(found["stages.0"], student.stages[0](stem))
    assert torch.equal(found["maps"], student.maps(images))
    assert list(found) == ["stages.0", "maps", "stem"]


def test_of_several_calls_the_last_counts_and_of_several_tensors_the_first() -> None:
    student, images = Own(), torch.randn(2, 3, 6, 7)
    _, found = Taps(student, ["act", "lstm"]).run(images)
    maps = student.conv(images.relu()).relu()
    assert torch.equal(found["act"], maps)
    assert torch.equal(found["lstm"], student.lstm(maps.mean(dim=2).mT)[0])


def test_gradients_flow_through_a_tap() -> None:
    student = Own()
    _, found = Taps(student, ["conv"]).run(torch.randn(2, 3, 6, 7))
    found["conv"].sum().backward()
    assert student.conv.bias.grad is not None
    assert student.lstm.weight_ih_l0.grad is None


def test_a_pass_that_nobody_asked_for_leaves_nothing() -> None:
    student = Own()
    taps = Taps(student, ["conv"])
    student(torch.randn(2, 3, 6, 7))
    taps.remove()
    with pytest.raises(UsageError, match="conv is not called"):
        taps.run(torch.randn(2, 3, 6, 7))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("convs", r"Own has no submodule convs: take maps, or one of its 5, such as conv"),
        ("unused", "unused is not called in its forward pass"),
        ("table", "table gives no tensor"),
        ("maps", r"gives no feature maps"),
    ],
)
def test_what_cannot_be_tapped_is_refused(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tap_shapes(Own(), [name], (6, 7))


def test_shapes_are_found_in_one_pass_that_leaves_no_trace() -> None:
    student = build_student("resnet8", {}).train()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    assert tap_shapes(student, ["stages.0", "maps"], (16, 8)) == {
        "stages.0": (16, 16, 8),
        "maps": (64, 4, 2),
    }
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    assert not any(part._forward_hooks for part in student.modules())
