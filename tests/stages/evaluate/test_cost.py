"""Multiply-accumulates counted by hand, and latency that is time on one thread."""

import statistics
import time

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from egapipe.stages.distill.data.inputs.blank import drawn_inputs
from egapipe.stages.distill.data.inputs.images import Frame
from egapipe.stages.distill.students import build_student
from egapipe.stages.evaluate.cost import (
    count_macs,
    count_parameters,
    measure_cost,
    measure_latency,
)


def by_hooks(module: nn.Module, images: Tensor) -> int:
    """Of one call: output elements times the inputs each is a sum over."""
    total = 0

    def count(layer: nn.Module, _: object, output: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Conv2d):
            kernel = layer.kernel_size[0] * layer.kernel_size[1]
            total += output.numel() * kernel * layer.in_channels // layer.groups
        elif isinstance(layer, nn.Linear):
            total += output.numel() * layer.in_features

    for layer in module.modules():
        layer.register_forward_hook(count)
    with torch.no_grad():
        module(images)
    return total


@pytest.mark.parametrize("name", ["digits_cnn", "resnet8x4", "shufflenet_v1", "mobilenet_v2_half"])
def test_macs_are_those_of_convolutions_and_linear_layers(name: str) -> None:
    student = build_student(name, {}).eval()
    images = torch.rand(1, 3, 32, 32)
    assert count_macs(student, images) == by_hooks(student, images) > 0


def test_resnet18_has_its_published_macs() -> None:
    # 1.81 G with 224 pixels: the stem, 4 convolutions of stage one, then a strided one, three and
    # a 1 x 1 of each of three stages that cost the same; the classifier is not part of a backbone.
    stem = 64 * 3 * 49 * 112**2
    first = 4 * 64 * 64 * 9 * 56**2
    later = 64 * 128 * 9 * 28**2 + 3 * 128 * 128 * 9 * 28**2 + 64 * 128 * 28**2
    student = build_student("resnet18", {}).eval()
    assert count_macs(student, torch.rand(1, 3, 224, 224)) == stem + first + 3 * later


def test_a_batch_costs_its_images() -> None:
    student = build_student("resnet8x4", {}).eval()
    one, four = (count_macs(student, torch.rand(b, 3, 32, 32)) for b in (1, 4))
    assert four == 4 * one


class Attention(nn.Module):
    def forward(self, tokens: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(tokens, tokens, tokens)


def test_attention_counts() -> None:
    products = 2 * 4 * 12 * 12 * 16
    assert count_macs(Attention(), torch.rand(1, 4, 12, 16)) == products


def test_fused_layers_count_what_they_compute() -> None:
    layer = nn.TransformerEncoderLayer(16, 4, 64, batch_first=True).eval()
    projections, mlp, products = 4 * 16 * 16, 2 * 16 * 64, 2 * 12 * 16
    assert torch.backends.mha.get_fastpath_enabled()
    assert count_macs(layer, torch.rand(1, 12, 16)) == 12 * (projections + mlp + products)
    assert torch.backends.mha.get_fastpath_enabled()


def test_parameters_are_not_buffers() -> None:
    assert count_parameters(nn.BatchNorm2d(8)) == 16
    assert count_parameters(nn.Conv2d(3, 8, 3, bias=False)) == 216


class Sleepy(nn.Module):
    """Takes the seconds it is told, one after the other, and notes the threads it has."""

    def __init__(self, seconds: list[float]) -> None:
        super().__init__()
        self.seconds, self.threads = seconds, set[int]()
        self.slept: list[float] = []

    def forward(self, images: Tensor) -> Tensor:
        began = time.perf_counter()
        time.sleep(self.seconds.pop(0))
        self.slept.append(1000 * (time.perf_counter() - began))
        self.threads.add(torch.get_num_threads())
        return images


def test_latency_is_the_median_on_one_thread_without_the_first_call() -> None:
    module = Sleepy([0.3, 0.05, 0.6, 0.05])
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = measure_latency(module, drawn_inputs(Frame((4, 4)), 3))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert module.threads == {1}
    assert (found.batch, found.repeats) == (3, 3)
    _, *slept = module.slept
    assert statistics.median(slept) <= found.milliseconds < max(slept)


def test_a_student_is_left_as_it_was() -> None:
    student = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
    student.train()

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = student

        def forward(self, images: Tensor) -> Tensor:
            return self.backbone(images.float())

    whole = Whole()
    before = {name: value.clone() for name, value in whole.state_dict().items()}
    cost = measure_cost(whole, student[0], Frame((8, 8)))
    assert whole.training
    assert student.training
    assert all(torch.equal(before[name], value) for name, value in whole.state_dict().items())
    assert cost.parameters == 4 * 27 + 4 + 8 + 144 * 2 + 2
    assert cost.backbone_parameters == 4 * 27 + 4
    assert cost.macs == 4 * 27 * 36 + 144 * 2
    assert [latency.batch for latency in cost.latency] == [1, 64]
    assert all(latency.milliseconds > 0 for latency in cost.latency)
