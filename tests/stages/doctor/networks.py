"""Networks with something wrong, for `module:callable`; digits are black in their corners."""

import torch
from torch import Tensor, nn


class Corner(nn.Module):
    """The upper left pixel: the same for all digits, and not for noise."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, 0, 0]


class LogCorner(Corner):
    """Infinite for black pixels."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).log()


class Raises(Corner):
    """Breaks down at black pixels."""

    def forward(self, x: Tensor) -> Tensor:
        if (super().forward(x) == 0).any():
            raise ZeroDivisionError("a pixel\nis black")
        return super().forward(x)


class Brightness(nn.Module):
    """Multiples of one vector, which all correlate."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(1, 2, 3))[:, None] * torch.tensor([1.0, 2.0, 4.0])


class Large(nn.Module):
    """Beyond float16."""

    def forward(self, x: Tensor) -> Tensor:
        return 1e6 * x.mean(dim=1).flatten(1)


class Linear(nn.Module):
    """Features [B, 4] of the mean colour; the same weights whenever it is made."""

    num_features = 4

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)
        for parameter in self.layer.parameters():
            nn.init.constant_(parameter, 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.mean(dim=(2, 3)))


class NotFinite(Linear):
    """Divides by zero."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 0.0
