"""How alike two embedding graphs of the same images are.

The graph is EGA's (arXiv 2211.13264, section 3): images are nodes, an edge is the Pearson
correlation of two embeddings. A row without variance correlates with nothing, itself included.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from egapipe.pipeline.mathematics.nearest import nearest

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NEIGHBOURS = 10
NONE = -1
# Of rows at a time in float64.
_CHUNK = 4096
# Variance of edges that rounding explains: no graph of different images comes near it.
_NO_VARIANCE = 1e-12


@dataclass(frozen=True)
class Agreement:
    """edge_correlation: Pearson correlation of the edges of two graphs, -1 to 1; NaN if the edges
    of one are all equal. neighbour_recall: share of a node's nearest neighbours in one graph that
    are among them in the other, mean over nodes, 0 to 1; NaN for fewer than two nodes."""

    edge_correlation: float
    neighbour_recall: float


@dataclass(frozen=True)
class Graph:
    """The embedding graph of N images.

    rows: float32 [N, D], centred and of unit norm; their inner products are the edges. neighbours:
    int64 [N, k], the strongest edges of each node, without itself; -1 for a row without variance.
    """

    rows: Floats
    neighbours: Ints

    @classmethod
    def of(cls, embeddings: Floats, k: int = NEIGHBOURS) -> Self:
        """The graph of float32 [N, D], finite. Fewer than k others are all neighbours."""
        rows = unit_rows(embeddings)
        return cls(rows, strongest_edges(rows, k))


def agreement(one: Graph, other: Graph) -> Agreement:
    """How alike two graphs of the same images are; both numbers are symmetric."""
    return Agreement(
        edge_correlation(one.rows, other.rows), neighbour_recall(one.neighbours, other.neighbours)
    )


def unit_rows(embeddings: Floats) -> Floats:
    """Rows centred over their entries and scaled to unit norm; zero for a row without variance."""
    units = np.empty_like(embeddings, dtype=np.float32)
    for part in _parts(len(embeddings)):
        rows = embeddings[part].astype(np.float64)
        centred = rows - rows.mean(axis=1, keepdims=True)
        norm = np.linalg.norm(centred, axis=1, keepdims=True)
        # What is left of a constant row is rounding of its float32 entries.
        rounding = 8 * np.finfo(np.float32).eps * np.linalg.norm(rows, axis=1, keepdims=True)
        varied = norm > rounding
        units[part] = np.where(varied, centred / np.where(varied, norm, 1), 0)
    return units


def edge_correlation(one: Floats, other: Floats) -> float:
    """Pearson correlation of all off-diagonal edges of two graphs, without an N x N matrix.

    one: float32 [N, D], other: [N, E], both of `unit_rows`. Over all pairs the sums that the
    correlation needs are those of small matrices: sum(ZZ') = |sum of rows|^2, and
    sum(ZZ' * YY') = |Z'Y|_F^2, less the diagonal. Time O(N D E), memory O(D E), exact to float64.
    """
    pairs = len(one) * (len(one) - 1)
    if pairs == 0:
        return float("nan")
    mean_one, mean_other = _edge_sum(one) / pairs, _edge_sum(other) / pairs
    variance_one = _product_sum(one, one) / pairs - mean_one**2
    variance_other = _product_sum(other, other) / pairs - mean_other**2
    if min(variance_one, variance_other) <= _NO_VARIANCE:
        return float("nan")
    covariance = _product_sum(one, other) / pairs - mean_one * mean_other
    return float(np.clip(covariance / np.sqrt(variance_one * variance_other), -1, 1))


def strongest_edges(rows: Floats, k: int = NEIGHBOURS) -> Ints:
    """The k strongest edges of each node to others: int64 [N, min(k, N - 1)], strongest first.

    rows: float32 [N, D] of `unit_rows`. A row without variance has none: -1.
    """
    k = min(k, len(rows) - 1)
    if k < 1:
        return np.empty((len(rows), 0), dtype=np.int64)
    found: Ints = np.concatenate(
        [_without_self(nearest(rows, rows[p], k + 1)[1], p.start) for p in _parts(len(rows))]
    )
    found[~rows.any(axis=1)] = NONE
    return found


def neighbour_recall(one: Ints, other: Ints) -> float:
    """Mean share of `one`'s neighbours that are `other`'s. Both: int64 [N, k], -1 = none."""
    if one.size == 0:
        return float("nan")
    shared = (one[:, :, None] == other[:, None, :]) & (one != NONE)[:, :, None]
    return float(shared.any(axis=2).mean())


def _without_self(found: Ints, start: int) -> Ints:
    """[n, k + 1] nearest rows of rows `start` and on, less each row itself: [n, k]."""
    others = found != np.arange(start, start + len(found))[:, None]
    # Among more than k equal rows a row may not find itself: then the last one goes.
    others[others.all(axis=1), -1] = False
    return np.asarray(found[others].reshape(len(found), -1))


def _edge_sum(rows: Floats) -> float:
    """Sum of the off-diagonal edges."""
    total = rows.sum(axis=0, dtype=np.float64)
    return float(total @ total - _squared_norms(rows).sum())


def _product_sum(one: Floats, other: Floats) -> float:
    """Sum over off-diagonal pairs of the product of the two graphs' edges."""
    cross: Doubles = np.zeros((one.shape[1], other.shape[1]))
    for part in _parts(len(one)):
        cross += one[part].astype(np.float64).T @ other[part].astype(np.float64)
    return float((cross**2).sum() - _squared_norms(one) @ _squared_norms(other))


def _squared_norms(rows: Floats) -> Doubles:
    return np.asarray(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))


def _parts(rows: int) -> Iterator[slice]:
    return (slice(start, start + _CHUNK) for start in range(0, rows, _CHUNK))
