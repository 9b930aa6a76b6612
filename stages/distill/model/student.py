"""The student with its heads."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Self, cast

import numpy as np
import torch
from torch import Tensor, nn

from egapipe.pipeline.config.data import Normalize
from egapipe.stages.distill.model.standardizer import Standardizer
from egapipe.stages.distill.students.frozen import frozen_parts
from egapipe.stages.distill.students.taps import Taps


class Head(nn.Module):
    """A linear node-embedding layer and a linear classifier on top of it (arXiv 2211.13264)."""

    def __init__(self, features: int, dim: int | None, classes: int) -> None:
        super().__init__()
        self.node: nn.Module = nn.Identity() if dim is None else nn.Linear(features, dim)
        self.classifier = nn.Linear(dim or features, classes)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """[B, F] features to [B, D] nodes and [B, C] logits."""
        node = self.node(features)
        return node, self.classifier(node)

    def to_features(self, by_node: Tensor | None, by_logits: Tensor | None) -> Tensor:
        """Gradients by nodes [B, D] and logits [B, C] to that by the features, float32 [B, F]."""
        parts = []
        if by_node is not None:
            parts.append(by_node.float())
        if by_logits is not None:
            parts.append(by_logits.float() @ self.classifier.weight)
        total = torch.stack(parts).sum(dim=0)
        return total @ self.node.weight if isinstance(self.node, nn.Linear) else total


class TeacherHead(Head):
    """The same on top of the teacher's stored features, which may be standardised first."""

    def __init__(
        self,
        features: int,
        dim: int | None,
        classes: int,
        standardizer: Standardizer | None = None,
    ) -> None:
        super().__init__(features, dim, classes)
        self.standardizer = standardizer

    def standardized(self, features: Tensor) -> Tensor:
        """float32 [B, F]: stored features as the node layer sees them."""
        return features.float() if self.standardizer is None else self.standardizer(features)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Stored features [B, F] to [B, D] nodes and [B, C] logits."""
        return super().forward(self.standardized(features))


class Seen(NamedTuple):
    """What a student makes of B images: node [B, D] and logits [B, C]; the backbone's features
    [B, F], where they are asked for; taps: what else of it is compared, [B, *shape] a tap."""

    node: Tensor
    logits: Tensor
    features: Tensor | None = None
    taps: Mapping[str, Tensor] = MappingProxyType({})

    def named(self) -> dict[str, Tensor]:
        """All of them by name, those of taps behind `taps.`."""
        own = {name: v for name, v in self._asdict().items() if isinstance(v, Tensor)}
        return {**own, **{f"taps.{name}": value for name, value in self.taps.items()}}

    @classmethod
    def of(cls, named: Mapping[str, Tensor]) -> Self:
        """Of what `named` gives."""
        taps = {n.removeprefix("taps."): v for n, v in named.items() if n.startswith("taps.")}
        own = {n: v for n, v in named.items() if not n.startswith("taps.")}
        return cls(**own, taps=taps)


class Student(nn.Module):
    """A backbone with a head: uint8 images, or arrays, to nodes and logits."""

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, head: Head, normalize: Normalize | None) -> None:
        """normalize: of images; None: the backbone sees arrays as they are."""
        super().__init__()
        self.backbone = backbone
        self.head = head
        self._taps: Taps | None = None
        self._gives_features = False
        self._normalizes = normalize is not None
        self._memory_format = torch.contiguous_format
        if normalize is None:
            return
        self.set_memory_format(torch.channels_last)
        # Part of the module so that it follows the device; not of the weights.
        # NumPy scales: on the meta device torch would import its compiler to multiply.
        for name, levels in (("mean", normalize.mean), ("std", normalize.std)):
            scaled = torch.tensor(np.asarray(levels, np.float32) * 255)
            self.register_buffer(name, scaled.view(1, 3, 1, 1), persistent=False)

    def set_memory_format(self, memory_format: torch.memory_format) -> None:
        """Order in memory of images and of the weights of convolutions; the values stay. Arrays,
        and what is made for them, stay as they are."""
        if not self._normalizes:
            return
        self.backbone.to(memory_format=memory_format)  # type: ignore[call-overload]
        self._memory_format = memory_format

    def train(self, mode: bool = True) -> Self:
        """As of any module, but that frozen parts of the backbone stay in evaluation mode."""
        super().train(mode)
        for part in frozen_parts(self.backbone):
            part.eval()
        return self

    def features(self, images: Tensor) -> Tensor:
        """uint8 [B, 3, H, W], or arrays [B, *shape], to the backbone's features [B, F]."""
        return cast(Tensor, self.backbone(self._pixels(images)))

    def tap(self, names: Sequence[str], *, features: bool = False) -> None:
        """Let `forward` give what these taps do, see `Taps`, and features: those of the backbone,
        where it is asked for all. Raises UsageError as `Taps` does."""
        self._taps = Taps(self.backbone, names) if names else None
        self._gives_features = features

    def forward(self, images: Tensor, *, tapped: bool = False) -> tuple[Any, ...]:
        """uint8 [B, 3, H, W], or arrays [B, *shape], to nodes [B, D] and logits [B, C].

        tapped: the features or None, and what each tap gives by its name, come behind them: the
        fields of `Seen`.
        """
        if not tapped:
            return tuple(self.head(self.features(images)))
        found: dict[str, Tensor] = {}
        if self._taps is None:
            features = self.features(images)
        else:
            features, found = self._taps.run(self._pixels(images))
        return (*self.head(features), features if self._gives_features else None, found)

    def _pixels(self, images: Tensor) -> Tensor:
        if not self._normalizes:
            return images
        pixels = (images.float() - self.mean) / self.std
        return pixels.contiguous(memory_format=self._memory_format)
