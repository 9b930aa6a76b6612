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

    It minimises, over standardised features, the mean cross-entropy plus weight_decay / 2 |W|^2:
    convex, so nothing is drawn by chance and no learning rate is tuned (scikit-learn, L-BFGS, at
    most 100 iterations). With one class in training that class is the answer to everything.
    train: float32 [N, D], test: float32 [Q, D], finite. Labels: int64, >= 0. NaN for no test or no
    training rows.
    """
    if len(train) == 0 or len(test) == 0:
        return float("nan")
    if (train_labels == train_labels[0]).all():
        return float((test_labels == train_labels[0]).mean())
    mean, scale = moments(train)
    # In place on the one copy: at 50,000 x 512 each further one is 100 MB.
    fitted = train - mean
    fitted /= scale
    weight, bias, classes = fit_logistic(fitted, train_labels, weight_decay)
    predicted = classes[_decide(((test - mean) / scale) @ weight.T + bias)]
    return float((predicted == test_labels).mean())


def moments(rows: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation of each column, float32 [D]; 1 for a column without spread."""
    mean = rows.mean(axis=0, dtype=np.float64)
    spread = rows.std(axis=0, dtype=np.float64)
    # Rounding gives a constant column a spread of its last bits, which are not to be blown up.
    spread[spread <= 1e-5 * np.abs(mean)] = 1
    spread[spread == 0] = 1
    return mean.astype(np.float32), spread.astype(np.float32)


def fit_logistic(
    rows: Floats, labels: Ints, weight_decay: float
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.floating], Ints]:
    """Weight [K, D] and bias [K] of K classes (1 for two), and the labels they stand for."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    # scikit-learn's C weighs the sum over rows, not the mean.
    model = LogisticRegression(C=1 / (weight_decay * len(rows)), max_iter=ITERATIONS)
    # Its own OpenMP threads beside those of BLAS: eight times slower on a busy machine.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(rows, labels)
    return model.coef_, model.intercept_, model.classes_
