"""The linear probe: what a linear classifier can read from embeddings."""

import warnings

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

WEIGHT_DECAY = 0.01
ITERATIONS = 100


def probe_accuracy(
    train: Floats,
    train_labels: Ints,
    test: Floats,
    test_labels: Ints,
    *,
    weight_decay: float = WEIGHT_DECAY,
) -> float:
    """Share of test rows that a logistic regression on the training rows gets right, 0 to 1.

    Over standardised features it minimises the mean cross-entropy plus weight_decay / 2 |W|^2: a
    convex problem, so that nothing is drawn by chance and no learning rate is tuned (L-BFGS of
    scikit-learn, at most 100 iterations). One class in training is the answer to everything.

    train: float32 [N, D], test: float32 [Q, D], finite. Labels: int64. NaN for no test or no
    training rows.
    """
    if len(train) == 0 or len(test) == 0:
        return float("nan")
    mean = train.mean(axis=0, dtype=np.float64).astype(np.float32)
    # One copy, changed in place: at 50,000 x 512 each is 100 MB.
    fitted = train - mean
    scale = column_scale(fitted, mean)
    fitted /= scale
    predicted = _logistic(fitted, train_labels, weight_decay, (test - mean) / scale)
    return float((predicted == test_labels).mean())


def column_scale(centred: Floats, mean: Floats) -> Floats:
    """Standard deviation of each column, float32 [D]; 1 for a column without spread.

    centred: [N, D], the rows less their mean [D].
    """
    spread = np.sqrt(np.einsum("nd,nd->d", centred, centred, dtype=np.float64) / len(centred))
    # Rounding gives a constant column a spread in its last bits: it must not be blown up.
    spread[spread <= 1e-5 * np.abs(mean)] = 1
    return np.asarray(spread, dtype=np.float32)


def _logistic(train: Floats, labels: Ints, weight_decay: float, test: Floats) -> Ints:
    """The labels that a logistic regression predicts for the test rows: int64 [Q]."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    if (labels == labels[0]).all():
        return np.full(len(test), labels[0])
    # scikit-learn's C weighs the sum over rows, not the mean.
    model = LogisticRegression(C=1 / (weight_decay * len(train)), max_iter=ITERATIONS)
    # The OpenMP threads of its loss beside those of its BLAS: many times slower on a busy machine.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(train, labels)
        return np.asarray(model.predict(test), dtype=np.int64)
