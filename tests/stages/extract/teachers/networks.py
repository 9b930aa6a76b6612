"""Functions of a user's own that build teachers."""

from typing import Any

import torch
from torch import Tensor, nn

from egapipe.stages.distill.students import build_student

NUMBER = 3


def small(width: int = 8, seed: int = 0) -> nn.Module:
    """Vectors [B, width]."""
    torch.manual_seed(seed)
    pool = (nn.AdaptiveAvgPool2d(2), nn.Flatten())
    return nn.Sequential(
        nn.Conv2d(3, width, 3), nn.Dropout(0.5), *pool, nn.Linear(4 * width, width)
    )


class Tokens(nn.Module):
    """Tokens [B, 16, 8]."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, 8, 4, stride=4)

    def forward(self, x: Tensor) -> Tensor:
        return self.patches(x).flatten(2).transpose(1, 2)


class Wrapped(Tokens):
    """A dictionary, as many libraries return it."""

    def forward(self, x: Tensor) -> Any:
        return {"tokens": super().forward(x)}


def real() -> nn.Module:
    """A ResNet of the students', as any package might have one."""
    torch.manual_seed(0)
    return build_student("resnet20", {})


def broken() -> nn.Module:
    raise FileNotFoundError("no weights\nat all")


def nothing() -> int:
    return NUMBER


class Classifier(nn.Module):
    """Maps [B, 8, 7, 7], and the logits [B, 5] of their mean."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.act = nn.ReLU()
        self.maps = nn.Sequential(nn.Conv2d(3, 8, 4, stride=2), nn.BatchNorm2d(8))
        self.head = nn.Linear(8, 5)
        self.unused = nn.Dropout()

    def forward(self, x: Tensor) -> Tensor:
        self.act(x)
        maps = self.maps(x)
        self.act(maps)
        return self.head(maps.mean(dim=(2, 3)))


def seeded_by_file(path: str) -> nn.Module:
    with open(path) as file:
        return small(seed=len(file.read()))
