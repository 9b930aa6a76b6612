"""Rows of one step."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """This worker's rows of one step, on its device.

    images: uint8 [B, 3, H, W]. features: [B, D], as stored. labels: int64 [B], -1 = unlabelled.
    rows: int64 [B] of the data set; `distill.views_per_row` entries of one row are behind each
    other. views: int64 [B], the teacher's, of the same entries; a turned one has the label -1.
    grids: [B, C, g, g] of the teacher, as stored, of the same views as the features; None where no
    objective compares them. draws: int64 [B], how often each row came up in the epoch before; None:
    never. others: int64 [B], the labels of the
    images that are mixed into these, and share: float32 [B], what an image has of its own; None
    where nothing is mixed.
    """

    images: Tensor
    features: Tensor
    labels: Tensor
    rows: Tensor
    views: Tensor | None = None
    grids: Tensor | None = None
    draws: Tensor | None = None
    others: Tensor | None = None
    share: Tensor | None = None
