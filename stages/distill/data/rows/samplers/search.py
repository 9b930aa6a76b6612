"""The nearest rows of every row: exact up to a size and on a GPU, approximate above it."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Nearest = npt.NDArray[np.int32]

EXACT_ROWS = 100_000
"""Up to so many rows the CPU compares all pairs; above, those of the nearest of IVF's lists."""
_QUERIES = 4096
_SCORES = 2**27
# Of faiss's k-means: with fewer rows a list it warns, more change nothing.
_TRAINING_ROWS = 64


def nearest_rows(directions: Tensor, k: int, device: torch.device) -> Nearest:
    """int32 [M, k]: for each row the k others with the largest inner product, largest first.

    directions: float32 [M, D] on the CPU, of unit length or zero. -1 where fewer were found: with
    M <= k, or by IVF. The same on every call on one machine; rounding may swap neighbours that are
    as near on another.
    """
    if device.type == "cuda":
        found = all_pairs(directions, k + 1, device)
    else:
        found = by_index(directions.numpy(), k + 1)
    return _without_itself(found, k)


def by_index(rows: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.int64]:
    """int64 [M, k]: those of largest inner product with each row, by faiss; flat, or IVF lists."""
    import faiss

    count, dim = rows.shape
    flat = faiss.IndexFlatIP(dim)
    index: Any = flat
    if count > EXACT_ROWS:
        lists = 4 * math.isqrt(count)
        index = faiss.IndexIVFFlat(flat, dim, lists, faiss.METRIC_INNER_PRODUCT)
        # Every n-th row: a store may be sorted by class.
        index.train(np.ascontiguousarray(rows[:: max(1, count // (lists * _TRAINING_ROWS))]))
        index.nprobe = max(16, lists // 32)
    index.add(rows)
    parts = [index.search(rows[i : i + _QUERIES], k)[1] for i in range(0, count, _QUERIES)]
    return np.concatenate(parts)


def all_pairs(rows: Tensor, k: int, device: torch.device) -> npt.NDArray[np.int64]:
    """int64 [M, k or M]: the same by matrix products; exact, and on a GPU faster than an index."""
    base = rows.to(device)
    step = max(1, _SCORES // len(base))
    parts = [
        (chunk @ base.T).topk(min(k, len(base)), dim=1).indices.cpu() for chunk in base.split(step)
    ]
    return torch.cat(parts).numpy()


def _without_itself(found: npt.NDArray[np.int64], k: int) -> Nearest:
    """Of each row's candidates the first k that are not the row; -1 for those that lack."""
    own = np.arange(len(found))[:, None]
    # Among images that come twice the row itself need not be the first, nor be there.
    absent = (found == own) | (found < 0)
    order = np.argsort(absent, axis=1, kind="stable")
    kept = np.take_along_axis(np.where(absent, -1, found), order, axis=1)[:, :k]
    return np.pad(kept, ((0, 0), (0, k - kept.shape[1])), constant_values=-1).astype(np.int32)
