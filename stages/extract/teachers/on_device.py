"""A teacher that resizes its images itself, in batches on its device."""

from typing import Any

import torch
from torch import Tensor

from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.mathematics.resampling import cropped_weights, resized
from egapipe.stages.extract.teachers.base import Outputs, Teacher
from egapipe.stages.extract.teachers.canvas import HEADER, NUMBERS, Canvas
from egapipe.stages.extract.teachers.preprocessing import Preprocessing

# Their pixels are float32 between two products: 100 MB for squares of 512.
_AT_ONCE = 32


class OnDevice:
    """A `Teacher` around another one, whose input is an image and what to do with it."""

    def __init__(self, teacher: Teacher, side: int) -> None:
        """side: of the square in which an image comes, see `Canvas`.

        Raises UsageError where the images of several teachers would come in one.
        """
        preprocessing = teacher.preprocessing
        if not isinstance(preprocessing, Preprocessing):
            raise UsageError(
                "extract.canvas is for one teacher, this one is an ensemble: leave it empty"
            )
        self.spec: dict[str, Any] = teacher.spec
        self.outputs = teacher.outputs
        self.preprocessing = Canvas(preprocessing, side)
        self._teacher = teacher
        self._resample = preprocessing.resample
        self._size = preprocessing.input_size

    def to(self, device: torch.device) -> None:
        """Move the weights to a device."""
        self._teacher.to(device)

    @torch.inference_mode()
    def forward(self, pixels: Tensor) -> Outputs:
        """Encode uint8 [B, P], see `Canvas`, into float32 [B, *shape] a name."""
        parts = [self.pixels(part) for part in pixels.split(_AT_ONCE)]
        return self._teacher.forward(parts[0] if len(parts) == 1 else torch.cat(parts))

    def pixels(self, packed: Tensor) -> Tensor:
        """What the teacher sees: uint8 [B, 3, h, w], at most a few grey levels from Pillow's."""
        side = self.preprocessing.side
        numbers = packed[:, :HEADER].to(torch.int32).view(-1, NUMBERS, 2)
        high = numbers[:, :, 1]
        values = numbers[:, :, 0] + 256 * torch.where(high < 128, high, high - 256)
        height, width, to_height, to_width, top, left = values.unbind(1)
        square = packed[:, HEADER:].view(-1, side, side, 3).permute(0, 3, 1, 2).float()
        tall, wide = self._size
        return resized(
            square,
            cropped_weights(width, to_width, left, side, wide, self._resample),
            cropped_weights(height, to_height, top, side, tall, self._resample),
        )
