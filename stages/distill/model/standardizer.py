"""The teacher's outputs as they enter a training: centred and of unit variance."""

from collections.abc import Mapping
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from egapipe.stages.distill.data.features.statistics import Statistics, channels_first

Standard = Literal["scale", "zscore", "phi-s"]


class Standardizer(nn.Module):
    """An output x of the teacher to W (x - mean).

    mean: [D]. weight: W, [D] of a diagonal or [D, D]. Both are buffers that checkpoints keep, so
    that whoever takes up the run, on whichever machine, has the very same numbers.
    """

    mean: Tensor
    weight: Tensor

    def __init__(self, mean: Tensor, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("weight", weight)

    @classmethod
    def of(cls, statistics: Statistics, kind: Standard) -> Self:
        """`scale`: over the root of the mean variance. `zscore`: each entry over its own. `phi-s`:
        `scale` behind the rotation to equal variances. An entry, or an output, without variance
        stays 0."""
        scale = float(_inverse_root(statistics.variance.mean()))
        match kind:
            case "scale":
                weight = np.full_like(statistics.mean, scale)
            case "zscore":
                weight = _inverse_root(statistics.variance)
            case "phi-s":
                if statistics.rotation is None:
                    raise ValueError("phi-s needs the rotation of the statistics")
                weight = statistics.rotation * scale
        return cls(torch.from_numpy(statistics.mean).float(), torch.from_numpy(weight).float())

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """Of a checkpoint's tensors. Raises KeyError where one is missing."""
        return cls(state["mean"], state["weight"])

    def forward(self, values: Tensor) -> Tensor:
        """[B, D], or [B, D, h, w] or [B, T, D] whose places are standardised alike, to the same in
        float32."""
        with torch.autocast(values.device.type, enabled=False):
            first = channels_first(values.dim() - 1)
            last = (values.float().movedim(1, -1) if first else values.float()) - self.mean
            last = last * self.weight if self.weight.dim() == 1 else last @ self.weight.T
            return last.movedim(-1, 1) if first else last


def _inverse_root(variance: np.ndarray) -> np.ndarray:
    constant = variance <= 0
    return np.where(constant, 0.0, 1.0 / np.sqrt(np.where(constant, 1.0, variance)))
