"""resnet18 and resnet50 as `ResNetForImageClassification` of transformers: the same maps, other
names.

The small residual networks have no stem that divides by four, and so are none of theirs.
"""

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn

from egapipe.pipeline.machine.extras import require
from egapipe.stages.distill.students.large_resnet import LargeResNet
from egapipe.stages.export.native import transformers as theirs
from egapipe.stages.export.native.folded import fold
from egapipe.stages.export.written import Order

Parts = tuple[tuple[str, str], ...]
LAYERS: dict[str, tuple[str, Parts]] = {
    "resnet18": ("basic", (("conv1", "bn1"), ("conv2", "bn2"))),
    "resnet50": (
        "bottleneck",
        (("reduce.0", "reduce.1"), ("spatial.0", "spatial.1"), ("expand.0", "expand.1")),
    ),
}
"""Student -> transformers' type of a block, and its convolutions and norms by our names."""


def write(order: Order, folder: str) -> nn.Module:
    """Write the student; give it as transformers loads it again."""
    transformers = require("transformers", "transformers", "a checkpoint of transformers")
    backbone = cast(LargeResNet, order.module.student.backbone)
    kind, convolutions = LAYERS[order.spec.student.name]
    stages = [list(cast(nn.Sequential, stage)) for stage in backbone.stages]
    state = dict(_state(backbone, convolutions))
    config = transformers.ResNetConfig(
        num_channels=3,
        embedding_size=64,
        hidden_sizes=_widths(stages, convolutions),
        depths=[len(stage) for stage in stages],
        layer_type=kind,
        hidden_act="relu",
        num_labels=order.spec.classes,
    )
    network = transformers.ResNetForImageClassification(config)
    weight, bias = fold(order.module.student.head)
    state |= {"classifier.1.weight": weight, "classifier.1.bias": bias}
    network.load_state_dict({name: value.contiguous() for name, value in state.items()})
    return theirs.save(network.eval(), order, folder)


def _widths(stages: list[list[nn.Module]], convolutions: Parts) -> list[int]:
    last = convolutions[-1][0]
    return [cast(nn.Conv2d, blocks[0].get_submodule(last)).out_channels for blocks in stages]


def _state(backbone: LargeResNet, convolutions: Parts) -> Iterator[tuple[str, Tensor]]:
    """Their name and the value of every weight of the backbone."""
    yield from _named(backbone.stem[0], backbone.stem[1], "resnet.embedder.embedder")
    for i, stage in enumerate(backbone.stages):
        for j, block in enumerate(cast(nn.Sequential, stage)):
            layer = f"resnet.encoder.stages.{i}.layers.{j}"
            for k, (conv, norm) in enumerate(convolutions):
                yield from _named(
                    block.get_submodule(conv), block.get_submodule(norm), f"{layer}.layer.{k}"
                )
            shortcut = cast(nn.Sequential, block.shortcut)
            if len(shortcut):
                yield from _named(shortcut[0], shortcut[1], f"{layer}.shortcut")


def _named(convolution: nn.Module, norm: nn.Module, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for part, module in (("convolution", convolution), ("normalization", norm)):
        for name, value in module.state_dict().items():
            yield f"{prefix}.{part}.{name}", torch.clone(value)
