"""JPEG images decoded on the teacher's device, by TorchCodec."""

import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from egapipe.pipeline.datasets.decoding.images import decode
from egapipe.pipeline.errors import ImageError, UsageError, one_line
from egapipe.pipeline.machine.extras import require
from egapipe.pipeline.mathematics.resampling import resized, weights
from egapipe.pipeline.views import View
from egapipe.stages.extract.teachers.base import Damaged
from egapipe.stages.extract.teachers.canvas import HEADER
from egapipe.stages.extract.teachers.on_device import OnDevice
from egapipe.stages.extract.teachers.undecoded import (
    MOST_PIXELS,
    Packed,
    Undecoded,
    decoded_header,
    packed_in,
)
from egapipe.stages.extract.workers.failures.faults import Scope, sort_error

Decode = Callable[[Sequence[Tensor], torch.device], Sequence[Tensor]]
"""Of files, uint8 [bytes] of host memory each, the images as stored, uint8 [3, H, W] on a device.
Raises RuntimeError if one of them cannot be decoded."""

# Of the images that are decoded in one call: 100 MB, or a single one.
_PIXELS_AT_ONCE = 2 * MOST_PIXELS
# By the numbers of nvjpegStatus_t.
_NO_MEMORY = re.compile(r"nvjpeg\w* failed: 5\b", re.IGNORECASE)
_SAMPLE_SIDE, _SAMPLE_GREY, _SAMPLE_OFF = 32, 90, 8

_Views = list[tuple[int, Packed]]
"""Of one image: positions in the batch, and what is seen there."""


class DecodingTeacher:
    """A `Teacher` whose device decodes JPEG images before it resizes them, see `Undecoded`."""

    def __init__(self, teacher: OnDevice) -> None:
        """Raises UsageError without TorchCodec."""
        inner = teacher.preprocessing
        self.spec, self.outputs = teacher.spec, teacher.outputs
        self.preprocessing = Undecoded(inner.inner, inner.side)
        self.forward = teacher.forward
        self._teacher = teacher
        self._jpegs = Jpegs(self.preprocessing, torchcodec())
        self.receive = self._jpegs.receive
        """See `received`."""

    def to(self, device: torch.device) -> None:
        """Move the weights to a device. Raises UsageError if that decodes no image."""
        self._teacher.to(device)
        self._jpegs.check(device)


def torchcodec() -> Decode:
    """TorchCodec's decoder: libjpeg-turbo on a CPU, nvJPEG on a GPU.

    Raises UsageError if it is not installed, cannot be loaded, or is too old.
    """
    found: Any = require("torchcodec.decoders", "jpeg", "extract.jpeg: device")
    if not hasattr(found, "decode_jpeg"):
        raise UsageError(
            f"extract.jpeg: device needs a later torchcodec than {version('torchcodec')}: "
            "pip install --upgrade 'egapipe[jpeg]'"
        )

    def decoded(files: Sequence[Tensor], device: torch.device) -> Sequence[Tensor]:
        images: Sequence[Tensor] = found.decode_jpeg(list(files), mode="RGB", device=device)
        return images

    return decoded


class Jpegs:
    """What a batch has undecoded is decoded on a device, each image once however many views there
    are of it. Its pixels are the same in any batch."""

    def __init__(self, canvas: Undecoded, decode: Decode) -> None:
        self._side = canvas.side
        self._resample = canvas.inner.resample
        self._decode = decode

    def check(self, device: torch.device) -> None:
        """Raise UsageError unless a device decodes a sound image, and rightly."""
        sample = torch.frombuffer(bytearray(_sample()), dtype=torch.uint8)
        try:
            [image] = self._decode([sample], device)
        except RuntimeError as error:
            _raise_unless_of_image(error)
            raise UsageError(
                f"TorchCodec decodes no JPEG image on {device} ({one_line(error)}): install one "
                "that is built for this torch, or leave out extract.jpeg"
            ) from error
        off = (image.int() - _SAMPLE_GREY).abs().max()
        if image.shape != (3, _SAMPLE_SIDE, _SAMPLE_SIDE) or off > _SAMPLE_OFF:
            raise UsageError(
                f"TorchCodec decodes a grey JPEG image wrongly on {device}: leave out extract.jpeg"
            )

    def receive(self, batch: Tensor, device: torch.device, damaged: Damaged) -> Tensor:
        """A batch, uint8 [B, P] of host memory as `Undecoded` has it, on a device as a `Canvas`
        has it.

        What the device does not decode is given to Pillow. Where that finds it damaged, the views
        are black, in the batch as well: `damaged` is told.
        """
        slots = batch.numpy()
        left = {i: packed for i, slot in enumerate(slots) if (packed := packed_in(slot))}
        if not left:
            return batch.to(device, non_blocking=True)
        canvas = _without(batch, left, device)
        for images in _calls(_images(left)):
            decoded = self._decoded([views[0][1] for views in images], device)
            for views, image in zip(images, decoded, strict=True):
                for position, packed in views:
                    if isinstance(image, str):
                        canvas[position] = batch[position] = 0
                        damaged(position, image)
                    else:
                        self._show(canvas[position], image, packed)
        return canvas

    def _decoded(self, images: Sequence[Packed], device: torch.device) -> list[Tensor | str]:
        """The upright images, uint8 [3, H, W], or why one is damaged."""
        try:
            found = self._decode([torch.from_numpy(one.data) for one in images], device)
        except RuntimeError as error:
            _raise_unless_of_image(error)
            half = len(images) // 2
            if half:
                return [
                    part
                    for some in (images[:half], images[half:])
                    for part in self._decoded(some, device)
                ]
            # It is the image's fault, if others can be decoded.
            self.check(device)
            return [_by_pillow(images[0], device)]
        pairs = zip(found, images, strict=True)
        return [
            upright(pixels, one.stored.orientation)
            if pixels.shape[1:] == one.stored[:2]
            else _by_pillow(one, device)
            for pixels, one in pairs
        ]

    def _show(self, slot: Tensor, image: Tensor, packed: Packed) -> None:
        """Put what is seen of an image into the square of a slot."""
        height, width = packed.size
        part = seen(image, packed.view)
        if part.shape[1:] != (height, width):
            part = self._fitted(part, height, width)
        square = slot[HEADER:].view(self._side, self._side, 3)
        square[:height, :width] = part.permute(1, 2, 0)

    def _fitted(self, part: Tensor, height: int, width: int) -> Tensor:
        tall, wide = (torch.tensor([edge], device=part.device) for edge in part.shape[1:])
        across = weights(wide, part.shape[2], width, self._resample)
        down = weights(tall, part.shape[1], height, self._resample)
        return resized(part[None].float(), across, down)[0]


def upright(image: Tensor, orientation: int) -> Tensor:
    """An image [3, H, W] turned as its EXIF orientation says, 1..8."""
    if orientation in (5, 6, 7, 8):
        image = image.transpose(1, 2)
    down, across = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return image.flip([axis for axis, flips in ((1, down), (2, across)) if flips])


def seen(image: Tensor, view: View) -> Tensor:
    """The part of an image [3, H, W] that `apply_view` leaves of it."""
    (top, bottom), (left, right) = (
        (max(0, start), max(0, min(length, start + extent)))
        for length, start, extent in zip(image.shape[1:], view[:2], view[2:4], strict=True)
    )
    part = image[:, top:bottom, left:right]
    if part.shape[1:] != (view.height, view.width):
        inner, part = part, image.new_zeros(3, view.height, view.width)
        down, across = top - view.top, left - view.left
        part[:, down : down + inner.shape[1], across : across + inner.shape[2]] = inner
    if view.flip:
        part = part.flip(2)
    return torch.rot90(part, view.turns, (1, 2)) if view.turns else part


def _images(left: dict[int, Packed]) -> Iterator[_Views]:
    """Views that follow each other and have the same bytes are of one image."""
    views: _Views = []
    for position, packed in left.items():
        if views and not np.array_equal(views[0][1].data, packed.data):
            yield views
            views = []
        views.append((position, packed))
    yield views


def _calls(images: Iterable[_Views]) -> Iterator[list[_Views]]:
    """Images that are decoded together."""
    call: list[_Views] = []
    pixels = 0
    for views in images:
        stored = views[0][1].stored
        if call and pixels + stored.height * stored.width > _PIXELS_AT_ONCE:
            yield call
            call, pixels = [], 0
        call.append(views)
        pixels += stored.height * stored.width
    yield call


def _without(batch: Tensor, left: dict[int, Packed], device: torch.device) -> Tensor:
    """A batch on a device whose undecoded views have black squares."""
    canvas = torch.zeros(batch.shape, dtype=torch.uint8, device=device)
    there = [i for i in range(len(batch)) if i not in left]
    if there:
        canvas[torch.tensor(there, device=device)] = batch[there].to(device)
    headers = np.stack([decoded_header(batch[i].numpy()) for i in left])
    canvas[torch.tensor([*left], device=device), :HEADER] = torch.from_numpy(headers).to(device)
    return canvas


def _by_pillow(packed: Packed, device: torch.device) -> Tensor | str:
    try:
        image = decode(packed.data.tobytes())
    except ImageError as error:
        return str(error)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).to(device)
    return upright(pixels, packed.stored.orientation)


def _raise_unless_of_image(error: RuntimeError) -> None:
    """Raise again what says nothing about an image: a device in disorder, no memory."""
    if _NO_MEMORY.search(str(error)):
        raise MemoryError(str(error)) from error
    if sort_error(error).scope is Scope.WORKER:
        raise error


def _sample() -> bytes:
    buffer = io.BytesIO()
    grey = (_SAMPLE_GREY,) * 3
    Image.new("RGB", (_SAMPLE_SIDE, _SAMPLE_SIDE), grey).save(buffer, "jpeg")
    return buffer.getvalue()
