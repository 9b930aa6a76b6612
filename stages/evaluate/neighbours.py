"""The accuracy of a vote among nearest neighbours."""

import numpy as np

from egapipe.pipeline.mathematics.nearest import Floats, Ints, nearest, unit_directions

NEIGHBOURS = 20
TEMPERATURE = 0.07
# Of queries at a time: faiss needs many for its matrix products, the votes are one row a query.
_CHUNK = 4096


def knn_accuracy(
    train: Floats,
    train_labels: Ints,
    test: Floats,
    test_labels: Ints,
    *,
    k: int = NEIGHBOURS,
    temperature: float = TEMPERATURE,
) -> float:
    """Share of test rows whose class wins the vote of their k nearest training rows, 0 to 1.

    Cosine similarity s; a neighbour's vote weighs exp(s / temperature), as in DINO (Caron et al.,
    ICCV 2021) and Wu et al. (CVPR 2018). Fewer than k training rows all vote; of equal classes the
    lowest wins. train: float32 [N, D], test: float32 [Q, D], finite. Labels: int64, >= 0. NaN for
    no test or no training rows.
    """
    if len(train) == 0 or len(test) == 0:
        return float("nan")
    base, classes = unit_directions(train), int(train_labels.max()) + 1
    correct = 0
    for start in range(0, len(test), _CHUNK):
        part = slice(start, start + _CHUNK)
        similarity, rows = nearest(base, unit_directions(test[part]), min(k, len(train)))
        winners = vote(similarity, train_labels[rows], classes, temperature)
        correct += int((winners == test_labels[part]).sum())
    return correct / len(test)


def vote(similarity: Floats, labels: Ints, classes: int, temperature: float) -> Ints:
    """The class with the largest sum of exp(s / temperature): int64 [Q].

    similarity: [Q, k] of the neighbours, labels: int64 [Q, k] theirs, below `classes`.
    """
    # Relative to the nearest: the same winner, and nothing overflows at a small temperature.
    nearer = similarity.astype(np.float64) - similarity.max(axis=1, keepdims=True)
    query = np.arange(len(labels))[:, None] * classes
    votes = np.bincount(
        (query + labels).ravel(),
        weights=np.exp(nearer / temperature).ravel(),
        minlength=len(labels) * classes,
    )
    return np.asarray(votes.reshape(len(labels), classes).argmax(axis=1), dtype=np.int64)
