"""Means over the places that a cell of a coarser grid covers, wholly or in part.

The cells are those of torch's adaptive pooling; as products with matrices the gradient is
deterministic on a GPU, too.
"""

import torch
from torch import Tensor


def averaged_maps(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps [B, C, h, w] averaged to [B, C, *size]; as they are where they have that size."""
    height, width = maps.shape[2:]
    if (height, width) == size:
        return maps
    return _means(height, size[0], maps) @ maps @ _means(width, size[1], maps).mT


def averaged_tokens(tokens: Tensor, length: int) -> Tensor:
    """Tokens [B, T, D] averaged to [B, length, D]; as they are where there are so many."""
    given = tokens.shape[1]
    return tokens if given == length else _means(given, length, tokens) @ tokens


def _means(given: int, wanted: int, like: Tensor) -> Tensor:
    """[wanted, given]: the share of each place in each cell."""
    place = torch.arange(given, device=like.device)
    cell = torch.arange(wanted, device=like.device)[:, None]
    first, end = cell * given // wanted, ((cell + 1) * given + wanted - 1) // wanted
    inside = ((place >= first) & (place < end)).to(like.dtype)
    return inside / inside.sum(dim=1, keepdim=True)
