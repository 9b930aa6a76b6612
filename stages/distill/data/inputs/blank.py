"""What a student's network is tried and measured with, where no data set is at hand."""

import torch
from torch import Tensor

from egapipe.pipeline.config.data import ArrayType
from egapipe.stages.distill.data.inputs.images import Frame


def drawn_inputs(seen: Frame | ArrayType, count: int) -> Tensor:
    """A batch of random rows as a student sees them, the same at every call.

    uint8 [count, 3, H, W] of images; normal numbers, or zeros and ones, of arrays.
    """
    generator = torch.Generator().manual_seed(0)
    if isinstance(seen, Frame):
        shape = (count, 3, *seen.size)
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    if seen.dtype == "int64":
        return torch.randint(0, 2, (count, *seen.shape), generator=generator)
    return torch.randn(count, *seen.shape, generator=generator)


def shape_words(seen: Frame | ArrayType) -> str:
    """`32x32 image`, or `64 array`."""
    sides, kind = (seen.size, "image") if isinstance(seen, Frame) else (seen.shape, "array")
    return f"{'x'.join(map(str, sides))} {kind}"
