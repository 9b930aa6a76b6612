"""Arrays as a teacher's input: nothing is done to them, they travel as the bytes that they are."""

from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import numpy.typing as npt
from PIL import Image

from egapipe.pipeline.config.sources import ArrayType
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.views import View
from egapipe.stages.extract.teachers.preprocessing import Pixels

if TYPE_CHECKING:
    # A process that decodes has none.
    from torch import Tensor

ITEM_BYTES = {"int64": 8, "float32": 4}


class ArrayInput:
    """A `Preparation` of arrays: decoding gives their bytes, uint8 [P], as it gives pixels."""

    least: tuple[int, int] | None = None

    def __init__(self, kind: ArrayType) -> None:
        self.kind = kind

    @property
    def shape(self) -> tuple[int, ...]:
        """(P,): the bytes of an array."""
        return (int(np.prod(self.kind.shape)) * ITEM_BYTES[self.kind.dtype],)

    def clean(self, image: Image.Image) -> Pixels:
        """Raises UsageError: it has no images."""
        raise_no_images(image.size)

    def view(self, image: Image.Image, view: View) -> Pixels:
        """Raises UsageError: it has no images."""
        raise_no_images(image.size)

    def bytes_of(self, array: npt.NDArray[Any]) -> Pixels:
        """uint8 [P] of an array, which has this shape and type."""
        return np.ascontiguousarray(array).view(np.uint8).reshape(-1)

    def arrays(self, packed: "Tensor") -> "Tensor":
        """The arrays [B, *shape] in bytes, uint8 [B, P], on their device."""
        import torch

        kind: torch.dtype = getattr(torch, self.kind.dtype)
        return packed.contiguous().view(kind).view(len(packed), *self.kind.shape)

    def noise(self, count: int) -> Pixels:
        """uint8 [count, P], the same at every call: normal numbers, or one array of the ids 0 and
        1, which any vocabulary has, again and again. One of these may be a padding, and a network
        blind to the order of words: it need not tell two such arrays apart."""
        rng, shape = np.random.default_rng(0), self.kind.shape
        if self.kind.dtype == "int64":
            return np.stack([self.bytes_of(rng.integers(0, 2, shape))] * count)
        drawn = rng.normal(size=(count, *shape)).astype(self.kind.dtype)
        return np.stack([self.bytes_of(one) for one in drawn])

    def to_json(self) -> dict[str, Any]:
        """See `Preparation`; arrays have no mean and no std."""
        return {"array": self.kind.model_dump(mode="json")}


def raise_no_images(size: tuple[int, int]) -> NoReturn:
    """Raise UsageError for an image where a teacher sees arrays."""
    raise UsageError(f"the teacher sees arrays, and is asked for an image of {size} pixels")
