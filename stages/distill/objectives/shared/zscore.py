"""Rows of logits without their mean and their size."""

import math

from torch import Tensor

from egapipe.stages.distill.objectives.shared.pearson import unit_rows


def zscores(logits: Tensor) -> Tensor:
    """(z - mean) / std of each row, [B, C]; std with C - 1 in its denominator.

    A row without variance becomes zero and receives no gradient.
    """
    return unit_rows(logits) * math.sqrt(max(0, logits.shape[1] - 1))
