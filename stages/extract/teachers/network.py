"""What every teacher that runs here shares: device, normalisation, precision and probing."""

from typing import Any, Protocol

import torch
from torch import Tensor

from egapipe.stages.extract.teachers.array_input import ArrayInput
from egapipe.stages.extract.teachers.base import CPU, UNKNOWN, Loading, Outputs, probe
from egapipe.stages.extract.teachers.preprocessing import Preprocessing


class Network(Protocol):
    """A frozen function of normalised images; an `nn.Module` in evaluation mode is one."""

    def to(self, device: torch.device) -> Any:
        """Move the weights to a device."""
        ...

    def __call__(self, x: Tensor, /) -> Outputs:
        """Encode normalised images, float32 [B, 3, H, W]: [B, *shape] a name."""
        ...


class NetworkTeacher:
    """A `Teacher` around a network, whichever library it comes from."""

    def __init__(
        self,
        spec: dict[str, Any],
        network: Network,
        preprocessing: Preprocessing | ArrayInput,
        loading: Loading = UNKNOWN,
    ) -> None:
        """Try a network with noise, unless its outputs are known.

        spec: see `Teacher.spec`; its `precision` is that of the forward pass. Raises TeacherError
        if the outputs are unusable.
        """
        self.spec = spec
        self.preprocessing = preprocessing
        self._network = network
        self._type: torch.dtype = getattr(torch, spec["precision"])
        self._entrance: Affine | ArrayInput = (
            preprocessing if isinstance(preprocessing, ArrayInput) else Affine(preprocessing)
        )
        self._device = torch.device("cpu")
        known = loading.known
        self.outputs = self._tried(loading.device) if known is None else dict(known.outputs)

    def to(self, device: torch.device) -> None:
        """Move the weights to a device."""
        self._device = device
        self._network.to(device)
        if isinstance(self._entrance, Affine):
            self._entrance.to(device)

    def _tried(self, device: torch.device) -> dict[str, tuple[int, ...]]:
        if device.type == "cpu":
            return probe(self)
        self.to(device)
        try:
            return probe(self, device)
        finally:
            self.to(CPU)

    @torch.inference_mode()
    def forward(self, pixels: Tensor) -> Outputs:
        """Encode uint8 [B, 3, H, W], or the bytes of arrays [B, P], into float32 [B, *shape] a
        name."""
        entrance = self._entrance
        x = entrance(pixels) if isinstance(entrance, Affine) else entrance.arrays(pixels)
        low = self._type != torch.float32
        with torch.autocast(self._device.type, self._type, enabled=low):
            outputs = self._network(x)
        return {name: output.float() for name, output in outputs.items()}


class Affine:
    """Pixels as a network sees them: x * scale + shift = (x * rescale - mean) / std."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        mean, std = (
            torch.tensor(v, dtype=torch.float64) for v in (preprocessing.mean, preprocessing.std)
        )
        scale, shift = preprocessing.rescale / std, -mean / std
        self._scale, self._shift = (v.float().view(3, 1, 1) for v in (scale, shift))

    def to(self, device: torch.device) -> None:
        """Move to a device."""
        self._scale, self._shift = self._scale.to(device), self._shift.to(device)

    def __call__(self, pixels: Tensor) -> Tensor:
        """uint8 [B, 3, H, W] to float32."""
        return pixels.to(torch.float32).mul_(self._scale).add_(self._shift)
