"""One vector an image from whatever shape a network's output has."""

from typing import Any

import torch
from torch import Tensor

from egapipe.stages.extract.teachers.network import Network


class Pooled:
    """A network whose output is vectors, tokens or maps, with the pooling that was asked for."""

    def __init__(self, network: Network, pooling: str, prefix: int) -> None:
        self._network = network
        self._pooling = pooling
        self._prefix = prefix

    def to(self, device: torch.device) -> Any:
        """Move the weights to a device."""
        self._network.to(device)

    def __call__(self, x: Tensor, /) -> Tensor:
        """Embed normalised images [B, 3, H, W]: [B, D]. Raises ValueError, see `pool`."""
        return pool(self._network(x), self._pooling, self._prefix)


def pool(output: Tensor, pooling: str, prefix: int) -> Tensor:
    """Pool [B, D], tokens [B, T, D] or maps [B, D, H, W] into [B, D], or [B, 2 D] for cls_mean.

    pooling: auto (there is nothing to pool), cls (first token), mean (of patch tokens or of a map)
    or cls_mean (both, side by side). prefix: tokens before the patches. Raises ValueError if the
    output is no tensor, or the pooling does not fit its shape.
    """
    if not isinstance(output, Tensor):
        raise ValueError(f"its output is a {type(output).__name__}, not one tensor")  # noqa: TRY004
    shape = list(output.shape)
    if pooling == "auto" and (output.ndim == 2 or (output.ndim == 4 and shape[2:] == [1, 1])):
        return output.flatten(1)
    if pooling == "mean" and output.ndim == 4:
        return output.mean(dim=(2, 3))
    if pooling == "auto" or output.ndim != 3:
        raise ValueError(f"its output has the shape {shape}: set teacher.pooling to {_fit(output)}")
    if pooling == "cls":
        return output[:, 0]
    if shape[1] <= prefix:
        raise ValueError(f"its output {shape} has no tokens after teacher.prefix_tokens = {prefix}")
    mean = output[:, prefix:].mean(dim=1)
    return mean if pooling == "mean" else torch.cat([output[:, 0], mean], dim=1)


def _fit(output: Tensor) -> str:
    """The poolings for a shape, in words."""
    named = {2: "auto", 3: "cls, mean or cls_mean", 4: "mean"}
    return named.get(output.ndim, "that of another output: this one is no vector, tokens or map")
