"""What becomes of the student's images behind crop and flip: colours, and mixtures of two."""

from typing import Literal

from egapipe.pipeline.config.base import AboveZero, Fraction, NonNegative, Section


class JitterConfig(Section):
    """Brightness, contrast and saturation, each by a factor between 1 - x and 1 + x of its own."""

    brightness: NonNegative = 0.4
    """x of the factor of all levels."""
    contrast: NonNegative = 0.4
    """x of the factor of the distances from the image's mean grey."""
    saturation: NonNegative = 0.4
    """x of the factor of the distances from each pixel's grey."""
    probability: Fraction = 1.0
    """Share of the images that it is done to, others each epoch."""


class MixConfig(Section):
    """Each image with another one of its batch in it, and their labels by the same shares.

    The image itself keeps half or more, and is what objectives know the row by.
    """

    kind: Literal["mixup", "cutmix", "either"] = "mixup"
    """`mixup`: a sum of both (arXiv 1710.09412); `cutmix`: a box of the other one in it (arXiv
    1905.04899); `either`: one of them for each image."""
    alpha: AboveZero = 1.0
    """Shares are drawn from Beta(alpha, alpha): 1 is evenly, less is nearer to one of both."""
    probability: Fraction = 1.0
    """Share of the images that it is done to, others each epoch."""
    teacher: Literal["mixed", "own"] = "mixed"
    """The teacher's features beside a mixture: the sum of both by the same shares, or those of the
    image itself. Grids are mixed place by place."""
