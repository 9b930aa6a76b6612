"""What a student costs: parameters, multiply-accumulates and latency on one CPU thread."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from egapipe.pipeline.config.data import ArrayType
from egapipe.pipeline.mathematics.timing import median_time, one_thread
from egapipe.stages.distill.data.inputs.blank import drawn_inputs
from egapipe.stages.distill.data.inputs.images import Frame

BATCHES = (1, 64)


@dataclass(frozen=True)
class Latency:
    """Median milliseconds of a batch on one CPU thread in float32, over `repeats` calls."""

    batch: int
    milliseconds: float
    repeats: int


@dataclass(frozen=True)
class Cost:
    """parameters: of the whole student; backbone_parameters: without node layer and classifier.
    macs: multiply-accumulates of one image in convolutions and matrix products."""

    parameters: int
    backbone_parameters: int
    macs: int
    latency: tuple[Latency, ...]


def measure_cost(student: nn.Module, backbone: nn.Module, seen: Frame | ArrayType) -> Cost:
    """The cost of a student that takes rows as `drawn_inputs` draws them, in evaluation mode.

    It is copied: its device, mode and gradients are left as they are.
    """
    on_cpu = copy.deepcopy(student).cpu().eval()
    return Cost(
        parameters=count_parameters(student),
        backbone_parameters=count_parameters(backbone),
        macs=count_macs(on_cpu, drawn_inputs(seen, 1)),
        latency=tuple(measure_latency(on_cpu, drawn_inputs(seen, b)) for b in BATCHES),
    )


def count_parameters(module: nn.Module) -> int:
    """Numbers that training can change or did; buffers are not counted."""
    return sum(parameter.numel() for parameter in module.parameters())


@torch.no_grad()
def count_macs(module: nn.Module, inputs: Tensor) -> int:
    """Multiply-accumulates of one call in convolutions and matrix products, attention included.

    Half of torch's count of floating-point operations; element-wise work is not part of it.
    """
    with unfused_attention(), FlopCounterMode(display=False) as counter:
        module(inputs)
    return int(counter.get_total_flops()) // 2


@contextmanager
def unfused_attention() -> Iterator[None]:
    """Attention as matrix products: torch counts nothing of its fused kernels for CPUs."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@torch.no_grad()
def measure_latency(module: nn.Module, inputs: Tensor) -> Latency:
    """The median over 3 to 200 calls, as many as fit into half a second, after a first one."""
    with one_thread():
        timing = median_time(lambda: module(inputs))
    return Latency(len(inputs), timing.milliseconds, timing.repeats)
