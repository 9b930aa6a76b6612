"""Pictures, as files or in memory, as the student saw them in training."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from egapipe.pipeline.datasets.decoding.images import decode, upright_rgb
from egapipe.pipeline.datasets.decoding.reading import read_bytes
from egapipe.pipeline.errors import ImageError
from egapipe.pipeline.views import clean_part
from egapipe.stages.distill.data.inputs.images import Frame, fitted

Picture = str | Path | Image.Image | npt.NDArray[np.uint8]
"""A file; a PIL image of any mode; or an array, uint8 [H, W, 3], [H, W, 4] or [H, W]."""


def clean_view(image: Image.Image, frame: Frame) -> Tensor:
    """The clean view of an RGB image, uint8 [3, H, W], cut out and resized as in training."""
    seen = fitted(clean_part(image, frame.aspect), frame.size)
    return torch.from_numpy(np.array(seen)).permute(2, 0, 1)


def view_of(picture: Picture, frame: Frame) -> Tensor | str:
    """The clean view of a picture, see `clean_view`; or why there is none."""
    try:
        return clean_view(_image(picture), frame)
    except ImageError as error:
        return str(error)


def _image(picture: Picture) -> Image.Image:
    if isinstance(picture, str | Path):
        return decode(read_bytes(Path(picture)))
    return upright_rgb(_of_array(picture) if isinstance(picture, np.ndarray) else picture)


def _of_array(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    grey = pixels.ndim == 2
    if pixels.dtype != np.uint8 or not (grey or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))):
        raise ImageError(
            f"an array {pixels.dtype} {list(pixels.shape)} is no picture: it must be uint8 "
            "[H, W, 3], [H, W, 4] or [H, W]"
        )
    if 0 in pixels.shape:
        raise ImageError(f"an array {list(pixels.shape)} has no pixels")
    return Image.fromarray(pixels)
