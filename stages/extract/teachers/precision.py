"""Weights in the precision of the forward pass, where that changes no bit of an output.

Below float32 a teacher runs under autocast, which casts the weights of linear layers and
convolutions at every pass. They are kept cast instead: half the memory, and the same numbers. All
others (norms, positions, scales) are used in float32, and stay so.
"""

from collections import defaultdict

import torch
from torch import nn

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
# Their own forward passes use the weights for nothing else. A subclass may have another one, which
# standardises them, say.
_FORWARDS = {kind.forward for kind in _LAYERS}
# Channels of an image: the type of the first layer decides in some models that of all positions.
_IMAGE = 3


def widen(module: nn.Module, precision: str) -> None:
    """Make float32 of all weights but those that autocast to a lower precision casts: no value
    changes, and what a file has in few bytes is not held in more."""
    if precision == "float32":
        module.float()
        return
    kept = _castable(module)
    for weights in (*module.parameters(), *module.buffers()):
        # Autocast leaves float64 as it is.
        kept_small = id(weights) in kept and weights.dtype != torch.float64
        if weights.is_floating_point() and not kept_small:
            weights.data = weights.data.float()


def narrow(module: nn.Module, precision: str) -> None:
    """Round the weights that autocast casts to its precision, once."""
    if precision == "float32":
        return
    kept = _castable(module)
    for weights in module.parameters():
        if id(weights) in kept:
            weights.data = weights.data.to(getattr(torch, precision))


def _castable(module: nn.Module) -> set[int]:
    """Identities of the parameters that layers alone use, of which autocast runs all."""
    users: defaultdict[int, list[bool]] = defaultdict(list)
    for part in module.modules():
        layer = type(part).forward in _FORWARDS and getattr(part, "in_channels", 0) != _IMAGE
        for weights in part._parameters.values():
            if weights is not None and weights.is_floating_point():
                users[id(weights)].append(layer)
    return {weights for weights, layers in users.items() if all(layers)}
