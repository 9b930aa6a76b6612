"""From a decoded image to the pixels a teacher sees."""

from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from egapipe.pipeline.errors import ImageError
from egapipe.pipeline.views import View, apply_view

Pixels = npt.NDArray[np.uint8]
"""uint8 [3, H, W], or [P] where the pixels of several sizes lie one behind the other."""


class Preparation(Protocol):
    """What decoding asks of a teacher's evaluation transform, whether it has one input or more."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the pixels of one image."""
        ...

    def clean(self, image: Image.Image) -> Pixels:
        """The evaluation transform of an RGB image. Raises ImageError if it has none."""
        ...

    def view(self, image: Image.Image, view: View) -> Pixels:
        """The view's crop and flip of an RGB image."""
        ...

    @property
    def least(self) -> tuple[int, int] | None:
        """Height and width that a part of an image has to have, or it is enlarged; None where
        images are not resized."""
        ...

    def noise(self, count: int) -> Pixels:
        """uint8 [count, *shape], the same at every call: inputs that a teacher tells apart, or
        equal ones where none is known to be."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Plain JSON for a manifest; `mean` and `std` of images are lists of three."""
        ...


def random_pixels(count: int, shape: tuple[int, ...]) -> Pixels:
    """uint8 [count, *shape], the same at every call."""
    return np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)


# Beyond this aspect ratio, bringing the shortest edge to the input size would need gigabytes.
_MAX_ASPECT = 100


@dataclass(frozen=True)
class Preprocessing:
    """A teacher's evaluation transform, as read from its own configuration.

    Pixels stay uint8 until they are on the device; there they become (x * rescale - mean) / std.
    """

    resize: tuple[int, int] | int | None
    """Height and width, or the length of the shortest edge; None keeps the image's size."""
    crop: tuple[int, int] | None
    """Height and width of the centre crop after resizing; zeros outside the image."""
    resample: str
    """Pillow's name of the filter, in lower case: bicubic, bilinear, lanczos, ..."""
    rescale: float
    """Factor from 0..255 to the range that `mean` and `std` are for (1/255, 0..1)."""
    mean: tuple[float, float, float]
    """Of R, G, B."""
    std: tuple[float, float, float]
    """Of R, G, B."""

    def __post_init__(self) -> None:
        if self.crop is None and not isinstance(self.resize, tuple):
            raise ValueError(
                "neither a centre crop nor a height and width: the input size is not fixed"
            )
        if self.resample.upper() not in Image.Resampling.__members__:
            raise ValueError(f"Pillow has no filter called {self.resample}")

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of what the teacher sees."""
        if self.crop is not None:
            return self.crop
        assert isinstance(self.resize, tuple)  # noqa: S101  (ensured by __post_init__)
        return self.resize

    @property
    def shape(self) -> tuple[int, int, int]:
        """(3, H, W) of what the teacher sees."""
        return 3, *self.input_size

    @property
    def least(self) -> tuple[int, int] | None:
        """See `Preparation`."""
        if self.resize is None:
            return None
        edges = (self.resize, self.resize) if isinstance(self.resize, int) else self.resize
        height, width = map(max, zip(edges, self.input_size, strict=True))
        return height, width

    def clean(self, image: Image.Image) -> Pixels:
        """The model's evaluation transform of an RGB image: uint8 [3, H, W].

        Raises ImageError for an image so narrow that it can't be resized.
        """
        resized = self._resized(image)
        return _channels_first(resized if self.crop is None else self.centre(resized, self.crop))

    def view(self, image: Image.Image, view: View) -> Pixels:
        """The view's crop and flip of an RGB image, resized to the input size: uint8 [3, H, W]."""
        return _channels_first(self._scale(apply_view(image, view), self.input_size))

    def centre(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        """The centre crop (height, width) of an image; zeros outside it."""
        top, left = self.corner((image.height, image.width), size)
        return image.crop((left, top, left + size[1], top + size[0]))

    def corner(self, image: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
        """Top and left of the centre crop (height, width) of an image (height, width)."""
        return (image[0] - size[0]) // 2, (image[1] - size[1]) // 2

    def resized_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of an image after resizing, before the crop.

        Raises ImageError for one so narrow that it can't be resized.
        """
        if self.resize is None:
            return height, width
        if isinstance(self.resize, tuple):
            return self.resize
        short, long = min(height, width), max(height, width)
        if long > _MAX_ASPECT * short:
            raise ImageError(f"{width} x {height} pixels are too narrow to be resized")
        edge = int(self.resize * long / short)
        return (edge, self.resize) if height > width else (self.resize, edge)

    def noise(self, count: int) -> Pixels:
        """See `Preparation`."""
        return random_pixels(count, self.shape)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON for a manifest; `mean` and `std` are lists of three."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def _resized(self, image: Image.Image) -> Image.Image:
        size = self.resized_size(image.height, image.width)
        return image if self.resize is None else self._scale(image, size)

    def _scale(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        height, width = size
        return image.resize((width, height), Image.Resampling[self.resample.upper()])


def _channels_first(image: Image.Image) -> Pixels:
    return np.asarray(image).transpose(2, 0, 1)
