"""Full precision inside autocast."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce

import torch
from torch import Tensor


@contextmanager
def full_precision(*tensors: Tensor) -> Iterator[list[Tensor]]:
    """The floating tensors in the widest of their types, float32 at least, with autocast off.

    Gradients come back in each tensor's own type. The backward pass belongs outside of autocast, as
    torch asks for.
    """
    dtype = reduce(torch.promote_types, (tensor.dtype for tensor in tensors), torch.float32)
    with torch.autocast(tensors[0].device.type, enabled=False):
        yield [tensor.to(dtype) for tensor in tensors]
