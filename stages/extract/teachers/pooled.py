"""One vector an image, and what is asked for beside it, from whatever a network's output is."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from egapipe.stages.extract.teachers.base import Outputs
from egapipe.stages.extract.teachers.outputs import Output, places, shaped
from egapipe.stages.extract.teachers.taps import KeptOutputs, submodule


class Raw(NamedTuple):
    """What a network gives before it is pooled. taps: what else is asked for, by its place."""

    output: Tensor
    taps: Mapping[str, Any] = MappingProxyType({})


class Source(Protocol):
    """A frozen function of normalised images; an `nn.Module` in evaluation mode is one."""

    def to(self, device: torch.device) -> Any:
        """Move the weights to a device."""
        ...

    def __call__(self, x: Tensor, /) -> Tensor | Raw:
        """The output for normalised images, float32 [B, 3, H, W]."""
        ...


class Tapped:
    """A network, of which submodules may be asked for beside its own output, or in its place."""

    def __init__(
        self, module: nn.Module, others: Mapping[str, Output], output: str | None = None
    ) -> None:
        """output: submodule in place of the network. Raises ValueError if one is not there."""
        self._module = module
        self._output = output
        own = {} if output is None else {output: "teacher.output"}
        self._places = {**places(others), **own}
        self._taps = KeptOutputs({path: submodule(module, path) for path in self._places})

    def to(self, device: torch.device) -> Any:
        """Move the weights to a device."""
        self._module.to(device)

    def __call__(self, x: Tensor, /) -> Raw:
        """What is asked for, of normalised images [B, 3, H, W]."""
        own = self._module(x)
        taken = {path: self._taps.take(path, setting) for path, setting in self._places.items()}
        return Raw(own if self._output is None else taken[self._output], taken)


class Pooled:
    """A network whose output is vectors, tokens or maps, with the pooling that was asked for."""

    def __init__(
        self,
        network: Source,
        pooling: str,
        prefix: int,
        others: Mapping[str, Output] = MappingProxyType({}),
    ) -> None:
        """prefix: tokens before the patches. others: outputs that are wanted beside it."""
        self._network = network
        self._pooling = pooling
        self._prefix = prefix
        self._others = others

    def to(self, device: torch.device) -> Any:
        """Move the weights to a device."""
        self._network.to(device)

    def __call__(self, x: Tensor, /) -> Outputs:
        """Encode normalised images [B, 3, H, W].

        embedding [B, D], and the other outputs. Raises ValueError, see `pool` and `shaped`.
        """
        found = self._network(x)
        output, taps = found if isinstance(found, Raw) else (found, {})
        outputs = {"embedding": pool(output, self._pooling, self._prefix)}
        # Only patches on a grid need it.
        height, width = (x.shape[2], x.shape[3]) if x.ndim == 4 else (0, 0)
        for name, other in self._others.items():
            given = output if other.at is None else taps[other.at]
            outputs[name] = shaped(given, other, self._prefix, (height, width))
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


def _fit(output: Tensor) -> str:
    """The poolings for a shape, in words."""
    named = {2: "auto", 3: "cls, mean or cls_mean", 4: "mean"}
    return named.get(output.ndim, "that of another output: this one is no vector, tokens or map")
