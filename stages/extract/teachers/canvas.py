"""Images as they are, for a device that resizes them: decoding need not."""

from typing import Any

import numpy as np
from PIL import Image

from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.views import View, apply_view
from egapipe.stages.extract.teachers.preprocessing import Pixels, Preprocessing, random_pixels

FILTERS = ("bilinear", "bicubic", "lanczos", "hamming")
"""Of Pillow's, those that are the same on a device: the others decide by where a pixel begins."""
NUMBERS = 6
"""Before the pixels, as int16: height and width of the image, of what it is resized to, and the
corner of the crop from that."""
HEADER = 2 * NUMBERS


class Canvas:
    """The pixels of an image in the corner of a black square, behind what is to be done with them.

    uint8 [P]: six numbers, then side x side x 3. Crops and flips of views are done already. An
    image that is larger than the square is brought to its size before, by the teacher's own filter.
    """

    def __init__(self, inner: Preprocessing, side: int) -> None:
        """Raises UsageError for a filter that devices do not have."""
        if inner.resample not in FILTERS:
            raise UsageError(
                f"extract.canvas: the teacher's images are resized by the {inner.resample} filter, "
                f"which is only done while they are decoded ({', '.join(FILTERS)} are done on the "
                "device): leave extract.canvas empty"
            )
        self.inner = inner
        self.side = side

    @property
    def shape(self) -> tuple[int, ...]:
        """(P,): the header and the square."""
        return (HEADER + self.side * self.side * 3,)

    @property
    def least(self) -> tuple[int, int] | None:
        """See `Preparation`."""
        return self.inner.least

    def clean(self, image: Image.Image) -> Pixels:
        """An RGB image, for the evaluation transform. Raises ImageError if it has none."""
        return self._packed(image, *self.evaluated(image.height, image.width))

    def view(self, image: Image.Image, view: View) -> Pixels:
        """The view's crop and flip of an RGB image, to be resized to the input size."""
        return self._packed(apply_view(image, view), self.inner.input_size, (0, 0))

    def noise(self, count: int) -> Pixels:
        """See `Preparation`."""
        return random_pixels(count, self.shape)

    def to_json(self) -> dict[str, Any]:
        """The teacher's own, and where it is done."""
        return {**self.inner.to_json(), "canvas": self.side}

    def evaluated(self, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """What the evaluation transform resizes an image to, and the corner of the crop from that.

        Raises ImageError if it has none.
        """
        size = self.inner.resized_size(height, width)
        return size, (0, 0) if self.inner.crop is None else self.inner.corner(size, self.inner.crop)

    def fitting(self, height: int, width: int) -> tuple[int, int]:
        """Height and width at which an image goes into the square."""
        longest = max(height, width)
        if longest <= self.side:
            return height, width
        tall, wide = (max(1, round(edge * self.side / longest)) for edge in (height, width))
        return tall, wide

    def _packed(self, image: Image.Image, size: tuple[int, int], corner: tuple[int, int]) -> Pixels:
        image = self._fitted(image)
        packed = np.zeros(self.shape, np.uint8)
        numbers = np.array([image.height, image.width, *size, *corner], "<i2")
        packed[:HEADER] = numbers.view(np.uint8)
        square = packed[HEADER:].reshape(self.side, self.side, 3)
        square[: image.height, : image.width] = np.asarray(image)
        return packed

    def _fitted(self, image: Image.Image) -> Image.Image:
        height, width = self.fitting(image.height, image.width)
        if (height, width) == (image.height, image.width):
            return image
        return image.resize((width, height), Image.Resampling[self.inner.resample.upper()])
