"""One vector an image, and what is asked for beside it, from whatever a network's output is."""

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from egapipe.stages.extract.teachers.base import Outputs
from egapipe.stages.extract.teachers.grid import to_grid


class Raw(NamedTuple):
    """What a network gives before it is pooled. logits: [B, K], where they are wanted."""

    output: Tensor
    logits: Tensor | None


class Source(Protocol):
    """A frozen function of normalised images; an `nn.Module` in evaluation mode is one."""

    def to(self, device: torch.device) -> Any:
        """Move the weights to a device."""
        ...

    def __call__(self, x: Tensor, /) -> Tensor | Raw:
        """The output for normalised images, float32 [B, 3, H, W]."""
        ...


class Pooled:
    """A network whose output is vectors, tokens or maps, with the pooling that was asked for."""

    def __init__(self, network: Source, pooling: str, prefix: int, grid: int | None = None) -> None:
        """prefix: tokens before the patches. grid: side of the grid that is wanted beside it."""
        self._network = network
        self._pooling = pooling
        self._prefix = prefix
        self._grid = grid

    def to(self, device: torch.device) -> Any:
        """Move the weights to a device."""
        self._network.to(device)

    def __call__(self, x: Tensor, /) -> Outputs:
        """Encode normalised images [B, 3, H, W].

        embedding [B, D], grid [B, C, g, g], logits [B, K]. Raises ValueError, see `pool` and
        `to_grid`.
        """
        found = self._network(x)
        output, logits = found if isinstance(found, Raw) else (found, None)
        outputs = {"embedding": pool(output, self._pooling, self._prefix)}
        if self._grid is not None:
            height, width = x.shape[2:]
            outputs["grid"] = to_grid(output, self._grid, self._prefix, (height, width))
        if logits is not None:
            outputs["logits"] = check_logits(logits)
        return outputs


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


def check_logits(logits: Tensor) -> Tensor:
    """The same [B, K]. Raises ValueError if they are anything else."""
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        given = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"its logits are {given}, not one number a class: name another output")
    return logits


def _fit(output: Tensor) -> str:
    """The poolings for a shape, in words."""
    named = {2: "auto", 3: "cls, mean or cls_mean", 4: "mean"}
    return named.get(output.ndim, "that of another output: this one is no vector, tokens or map")
