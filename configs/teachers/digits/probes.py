"""How good embeddings are without fine-tuning: linear probes and nearest neighbours."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

NEIGHBOURS = 20
LABELS_PER_CLASS = 10
DRAWS = 5


class Scores(NamedTuple):
    """Test accuracies in percent."""

    linear: float
    neighbours: float
    few_labels: float


def score(train_x: Floats, train_y: Ints, test_x: Floats, test_y: Ints) -> Scores:
    """Linear probe, 20 nearest neighbours by cosine, linear probe from ten labels a class.

    *_x: float32 [N, D]; *_y: int64 [N]. Features are centred and divided by one number, their
    standard deviation over the whole training matrix, so that the probe's penalty means the same
    for pixels and embeddings; the neighbours are looked up among the features as they are.
    """
    knn = KNeighborsClassifier(NEIGHBOURS, metric="cosine").fit(train_x, train_y)
    centre, spread = train_x.mean(axis=0), train_x.std()
    a, b = (train_x - centre) / spread, (test_x - centre) / spread
    few = [probe(a[i], train_y[i], b, test_y) for i in label_draws(train_y)]
    return Scores(
        linear=probe(a, train_y, b, test_y),
        neighbours=100 * float(knn.score(test_x, test_y)),
        few_labels=float(np.mean(few)),
    )


def probe(train_x: Floats, train_y: Ints, test_x: Floats, test_y: Ints) -> float:
    """Test accuracy, percent, of scikit-learn's logistic regression (C = 1)."""
    model: Any = LogisticRegression(max_iter=2000).fit(train_x, train_y)
    return 100 * float(model.score(test_x, test_y))


def label_draws(labels: Ints) -> list[Ints]:
    """Five draws of ten rows a class: five arrays of 100 row numbers."""
    draws = []
    for draw in range(DRAWS):
        rng = np.random.default_rng(draw)
        classes = [np.flatnonzero(labels == c) for c in np.unique(labels)]
        draws.append(np.concatenate([rng.choice(c, LABELS_PER_CLASS, False) for c in classes]))
    return draws


def table(scores: dict[str, Scores]) -> str:
    """The scores as the Markdown table of the card."""
    names = (
        "linear probe, all labels",
        f"{NEIGHBOURS} nearest neighbours, cosine",
        f"linear probe, {LABELS_PER_CLASS} labels a class (mean of {DRAWS} draws)",
    )
    lines = [f"| test accuracy (%) | {' | '.join(scores)} |", "| --- |" + " ---: |" * len(scores)]
    for name, row in zip(names, zip(*scores.values(), strict=True), strict=True):
        lines.append(f"| {name} | {' | '.join(f'{value:.1f}' for value in row)} |")
    return "\n".join(lines)
