"""JPEG images decoded at less than their size, where no view of them shows it."""

from typing import Any

import numpy as np
from PIL import Image

from egapipe.pipeline.views import Boxes, View
from egapipe.stages.extract.teachers.preprocessing import Pixels, Preparation

_DIVISORS = (8, 4, 2)
"""Of which a decoder can leave out detail: a block of JPEG is 8 x 8 pixels."""


class Reduced:
    """A `Preparation` of images that may have been decoded at less than their size."""

    def __init__(self, whole: Preparation) -> None:
        self._whole = whole

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Preparation`."""
        return self._whole.shape

    @property
    def least(self) -> tuple[int, int] | None:
        """See `Preparation`."""
        return self._whole.least

    def clean(self, image: Image.Image) -> Pixels:
        """See `Preparation`."""
        return self._whole.clean(image)

    def view(self, image: Image.Image, view: View) -> Pixels:
        """See `Preparation`; the view is of the image as it is given."""
        return self._whole.view(image, view)

    def noise(self, count: int) -> Pixels:
        """See `Preparation`."""
        return self._whole.noise(count)

    def to_json(self) -> dict[str, Any]:
        """What makes another store of it."""
        return {**self._whole.to_json(), "jpeg": "reduced"}


def divisor_of(size: tuple[int, int], boxes: Boxes, least: tuple[int, int] | None) -> int:
    """By how much an image of a size (height, width) may be divided: 1, 2, 4 or 8.

    Neither the whole image nor a box then has less than `least`, unless it has without that.
    """
    if least is None:
        return 1
    sides = np.concatenate([np.array([size]), boxes.sizes])
    fitting = (by for by in _DIVISORS if (sides // by >= least).all())
    return next(fitting, 1)


def scaled(view: View, whole: tuple[int, int], size: tuple[int, int]) -> View:
    """A view of an image of the size `whole` (height, width), in pixels of one of the size `size`.

    Edges are rounded to its pixels.
    """
    if whole == size:
        return view
    down, across = (new / old for new, old in zip(size, whole, strict=True))
    top, bottom = round(view.top * down), round((view.top + view.height) * down)
    left, right = round(view.left * across), round((view.left + view.width) * across)
    return view._replace(
        top=top, left=left, height=max(1, bottom - top), width=max(1, right - left)
    )
