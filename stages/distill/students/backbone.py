"""What every student of this package is: feature maps, then their mean."""

from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from egapipe.pipeline.errors import UsageError


@runtime_checkable
class GivesMaps(Protocol):
    """A student whose last feature map can be had as well: features = pool(maps(images)).

    All registered students and `timm:<name>` are such; networks of the user's own may be. Where
    the sides of maps are stated as H / 4 and so on, they are rounded when H is no multiple.
    """

    def maps(self, images: Tensor) -> Tensor:
        """Float [B, 3, H, W] to the last feature map before pooling, [B, C, h, w]."""
        ...

    def pool(self, maps: Tensor) -> Tensor:
        """[B, C, h, w] to the features [B, F]."""
        ...


class Backbone(nn.Module, ABC):
    """Normalised images to features, without a classifier. C = F = num_features."""

    num_features: int

    @abstractmethod
    def maps(self, images: Tensor) -> Tensor:
        """Float [B, 3, H, W] to the last feature map before pooling, [B, num_features, h, w]."""

    def pool(self, maps: Tensor) -> Tensor:
        """The mean over the grid: [B, num_features, h, w] to [B, num_features]."""
        return maps.mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Float [B, 3, H, W] to [B, num_features]."""
        return self.pool(self.maps(images))


def require_maps(student: nn.Module) -> GivesMaps:
    """The student, as one that gives maps. Raises UsageError: it does not."""
    if isinstance(student, GivesMaps):
        return student
    raise UsageError(
        f"student {type(student).__name__} gives no feature maps: it needs the methods "
        "maps(images) and pool(maps); every registered student and timm:<name> has them"
    )


def maps_and_features(student: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Maps [B, C, h, w] and features [B, F] of a student in one pass.

    images: float [B, 3, H, W]. Raises UsageError: the student does not give maps.
    """
    grid = require_maps(student)
    maps = grid.maps(images)
    return maps, grid.pool(maps)
