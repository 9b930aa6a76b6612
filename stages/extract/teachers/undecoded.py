"""JPEG images as the bytes that they are, for a device that decodes them."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from egapipe.pipeline.datasets.decoding.jpeg import PlainJpeg, Stored, plain_jpeg
from egapipe.pipeline.views import View
from egapipe.stages.extract.teachers.canvas import HEADER, Canvas
from egapipe.stages.extract.teachers.preprocessing import Pixels

_STORED = len(Stored._fields)
_BEFORE = HEADER + 4 * (_STORED + len(View._fields) + 1)
MOST_PIXELS = 1 << 24
"""Of an image that is left to the device, where several are at once: a larger one has gigabytes."""


class Undecoded(Canvas):
    """A `Canvas` in which plain JPEG images are as they are stored, if that has room in it.

    uint8 [P]: six numbers, as of the pixels that they stand for, but the height negative; as int32
    those of `Stored` and of the view, whose box is of the upright image, and how many bytes follow.
    Any other image is decoded before, and is as a `Canvas` has it.
    """

    def left(self, data: bytes) -> "Left | None":
        """The image that a file is, if it is left to the device."""
        plain = plain_jpeg(data)
        if plain is None or plain.stored.height * plain.stored.width > MOST_PIXELS:
            return None
        return Left(self, plain) if _BEFORE + len(plain.data) <= self.shape[0] else None

    def to_json(self) -> dict[str, Any]:
        """What makes another store of it."""
        return {**super().to_json(), "jpeg": "device"}


@dataclass(frozen=True)
class Left:
    """A JPEG image that is left to the device, as `Preparation` has one that is decoded."""

    canvas: Undecoded
    plain: PlainJpeg

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the upright image."""
        return self.plain.stored.upright

    def clean(self) -> Pixels:
        """See `Preparation`."""
        height, width = self.size
        whole = View(0, 0, height, width, flip=False)
        return self._packed(whole, *self.canvas.evaluated(height, width))

    def view(self, view: View) -> Pixels:
        """See `Preparation`."""
        return self._packed(view, self.canvas.inner.input_size, (0, 0))

    def _packed(self, view: View, size: tuple[int, int], corner: tuple[int, int]) -> Pixels:
        seen = (view.width, view.height) if view.turns % 2 else (view.height, view.width)
        height, width = self.canvas.fitting(*seen)
        packed = np.zeros(self.canvas.shape, np.uint8)
        packed[:HEADER] = _bytes([-height, width, *size, *corner], "<i2")
        data = self.plain.data
        packed[HEADER:_BEFORE] = _bytes([*self.plain.stored, *view, len(data)], "<i4")
        packed[_BEFORE : _BEFORE + len(data)] = np.frombuffer(data, np.uint8)
        return packed


class Packed(NamedTuple):
    """What a slot holds of an image that is left to the device.

    size: height and width in the square. data: uint8, in the slot itself.
    """

    size: tuple[int, int]
    stored: Stored
    view: View
    data: Pixels


def packed_in(slot: Pixels) -> Packed | None:
    """What is left to the device in a slot, uint8 [P]; None where it has pixels."""
    tall, wide = slot[:HEADER].view("<i2")[:2].tolist()
    if tall >= 0:
        return None
    numbers = slot[HEADER:_BEFORE].view("<i4").tolist()
    top, left, height, width, flip, turns, length = numbers[_STORED:]
    view = View(top, left, height, width, bool(flip), turns)
    data = slot[_BEFORE : _BEFORE + length]
    return Packed((-tall, wide), Stored(*numbers[:_STORED]), view, data)


def decoded_header(slot: Pixels) -> Pixels:
    """What is before the pixels once they are there, uint8 [HEADER]."""
    numbers = slot[:HEADER].view("<i2").copy()
    numbers[0] = abs(numbers[0])
    return numbers.view(np.uint8)


def _bytes(numbers: list[int], kind: str) -> npt.NDArray[np.uint8]:
    return np.array(numbers, kind).view(np.uint8)
