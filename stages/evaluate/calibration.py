"""How far a classifier's confidence is from its accuracy."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BINS = 15


@dataclass(frozen=True)
class Bin:
    """Predictions with a confidence in (low, high]: how many, and their mean confidence and
    accuracy, 0 to 1, both 0 for none."""

    low: float
    high: float
    images: int
    confidence: float
    accuracy: float


def confidence_bins(
    confidence: npt.NDArray[np.floating], correct: npt.NDArray[np.bool_], bins: int = BINS
) -> list[Bin]:
    """Predictions by confidence, in equal intervals ((m - 1) / bins, m / bins].

    confidence: [N], the largest softmax probability of each row. correct: bool [N]. Raises
    ValueError for a confidence that is not finite.
    """
    if not np.isfinite(confidence).all():
        raise ValueError("the student's outputs are not finite")
    exact = confidence.astype(np.float64)
    # Rounding may carry a softmax a bit above 1; a confidence of 0 belongs to the first bin.
    bin_of = np.clip(np.ceil(exact * bins).astype(int) - 1, 0, bins - 1)
    counts, sums, hits = (
        np.bincount(bin_of, weights=weights, minlength=bins) for weights in (None, exact, correct)
    )
    many = np.maximum(counts, 1)
    return [
        Bin(m / bins, (m + 1) / bins, int(counts[m]), float(c), float(a))
        for m, (c, a) in enumerate(zip(sums / many, hits / many, strict=True))
    ]


def calibration_error(
    confidence: npt.NDArray[np.floating], correct: npt.NDArray[np.bool_], bins: int = BINS
) -> float:
    """Expected calibration error (Guo et al., ICML 2017, equation 3), 0 to 1.

    The mean over predictions of |accuracy - confidence| of the bin they fall in, see
    `confidence_bins`. NaN for no rows or a confidence that is not finite.
    """
    if len(confidence) == 0 or not np.isfinite(confidence).all():
        return float("nan")
    found = confidence_bins(confidence, correct, bins)
    total = sum(of.images * abs(of.accuracy - of.confidence) for of in found)
    return float(total / len(confidence))
