"""Nearest neighbours by inner product, over all pairs."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def unit_directions(rows: Floats) -> Floats:
    """Rows scaled to unit norm, a copy; a row of zeros stays zero. rows: float32 [N, D]."""
    # Norms in float64: the squares of large finite numbers overflow float32.
    norms = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))
    return (rows / np.where(norms > 0, norms, 1)[:, None]).astype(np.float32)


def nearest(base: Floats, queries: Floats, k: int) -> tuple[Floats, Ints]:
    """The k rows of `base` with the largest inner product, for each query; exact search.

    base: float32 [N, D] with N >= k >= 1. queries: float32 [Q, D]; both finite. Returns the inner
    products, float32 [Q, k], largest first, and the row numbers, int64 [Q, k].
    """
    import faiss

    index = faiss.IndexFlatIP(base.shape[1])
    index.add(np.ascontiguousarray(base))
    similarity, rows = index.search(np.ascontiguousarray(queries), k)
    return similarity, rows
