"""Rows of one step."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """This worker's rows of one step, on its device.

    images: uint8 [B, 3, H, W]. features: [B, D], as stored. labels: int64 [B], -1 = unlabelled.
    rows: int64 [B] of the data set; `distill.views_per_row` entries of one row are behind each
    other. views: int64 [B], the teacher's, of the same entries; a turned one has the label -1.
    outputs: [B, *shape] each, what else objectives compare of the teacher, by its name in the
    store, as stored, of the same views as the features. draws: int64 [B], how often each row came
    up in the epoch before; None: never. others: int64 [B], the labels of the images that are mixed
    into these, and share: float32 [B], what an image has of its own; None where nothing is mixed.
    """

    images: Tensor
    features: Tensor
    labels: Tensor
    rows: Tensor
    views: Tensor | None = None
    outputs: Mapping[str, Tensor] = field(default_factory=dict)
    draws: Tensor | None = None
    others: Tensor | None = None
    share: Tensor | None = None

    def tensors(self) -> list[Tensor]:
        """All there are, in one order."""
        own = [v for v in self._own().values() if isinstance(v, Tensor)]
        return [*own, *self.outputs.values()]

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Self:
        """A batch of what a function makes of each tensor, whose first dimension are the rows."""
        own = {name: change(v) for name, v in self._own().items() if isinstance(v, Tensor)}
        outputs = {name: change(value) for name, value in self.outputs.items()}
        return replace(self, **own, outputs=outputs)

    def _own(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}
