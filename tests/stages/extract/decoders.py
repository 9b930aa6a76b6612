"""What decodes JPEG images on a device in tests: TorchCodec where it can be loaded, and Pillow in
its place anywhere."""

import io
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from egapipe.pipeline.errors import UsageError
from egapipe.stages.extract.workers.forward.jpegs import Decode, torchcodec

NAMES = ("pillow", "torchcodec")


def decoder(name: str) -> Decode:
    """One of NAMES; skips the test where it cannot be loaded."""
    if name == "pillow":
        return by_pillow
    try:
        return torchcodec()
    except UsageError as error:
        pytest.skip(str(error))


def by_pillow(files: Sequence[Tensor], device: torch.device) -> Sequence[Tensor]:
    """Images as they are stored; raises RuntimeError for a damaged one, as TorchCodec does."""
    return [_stored(file).to(device) for file in files]


def _stored(file: Tensor) -> Tensor:
    try:
        with Image.open(io.BytesIO(file.numpy().tobytes()), formats=["JPEG"]) as image:
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    except OSError as error:
        raise RuntimeError(str(error)) from error
