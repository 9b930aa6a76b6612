"""How far a classifier's confidence is from its accuracy."""

import numpy as np
import numpy.typing as npt

BINS = 15


def calibration_error(
    confidence: npt.NDArray[np.floating], correct: npt.NDArray[np.bool_], bins: int = BINS
) -> float:
    """Expected calibration error (Guo et al., ICML 2017, equation 3), 0 to 1.

    The mean over predictions of |accuracy - confidence| of the bin they fall in, bins being the
    intervals ((m - 1) / bins, m / bins]. confidence: [N], the largest softmax probability of each
    row. correct: bool [N]. NaN for no rows or a confidence that is not finite.
    """
    if len(confidence) == 0 or not np.isfinite(confidence).all():
        return float("nan")
    # Rounding may carry a softmax a bit above 1; a confidence of 0 belongs to the first bin.
    bin_of = np.clip(np.ceil(confidence.astype(np.float64) * bins).astype(int) - 1, 0, bins - 1)
    surplus = np.bincount(bin_of, weights=correct - confidence.astype(np.float64), minlength=bins)
    return float(np.abs(surplus).sum() / len(confidence))
