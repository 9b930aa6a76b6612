"""Two linear maps as one."""

import copy

import torch
from torch import Tensor, nn

from egapipe.stages.distill.model.student import Head


def fold(head: Head) -> tuple[Tensor, Tensor]:
    """Weight [C, F] and bias [C], float32, of features to logits: W_c W_n and W_c b_n + b_c.

    Multiplied in float64: the one rounding is that of the result.
    """
    classifier = head.classifier
    weight, bias = classifier.weight.detach().double(), classifier.bias.detach().double()
    if isinstance(head.node, nn.Linear):
        bias = weight @ head.node.bias.detach().double() + bias
        weight = weight @ head.node.weight.detach().double()
    return weight.float().contiguous(), bias.float()


def folded_linear(head: Head) -> nn.Linear:
    """The same as a layer."""
    weight, bias = fold(head)
    with torch.device("meta"):
        linear = nn.Linear(weight.shape[1], weight.shape[0])
    linear.weight, linear.bias = nn.Parameter(weight), nn.Parameter(bias)
    return linear


def with_classifier(network: nn.Module, place: str, head: Head) -> nn.Module:
    """A copy of a network with the folded head where its classifier was left out."""
    whole = copy.deepcopy(network)
    whole.set_submodule(place, folded_linear(head))
    whole.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return whole.eval()
