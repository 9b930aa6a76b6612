"""Pearson correlation between embeddings, in numpy."""

from typing import Any

import numpy as np
import numpy.typing as npt


def correlations(rows: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The matrix [n, n] of Pearson correlations between real rows [n, D], the edges of EGA.

    A row without variance correlates with nothing, itself included.
    """
    centred = rows.astype(np.float64)
    centred -= centred.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = centred / np.where(norms == 0, 1, norms)
    matrix: npt.NDArray[np.float64] = unit @ unit.T
    return matrix
