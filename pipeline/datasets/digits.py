"""scikit-learn's handwritten digits: real images that need no download."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from egapipe.pipeline.config.data import DigitsSource
from egapipe.pipeline.datasets.rows import Rows, RowsDataset

TRAIN_ROWS = 1437
_MAX_GREY = 16


class DigitsDataset(RowsDataset):
    """1,797 grey images of 8 x 8 pixels (UCI optical recognition of handwritten digits, test part).

    Rows 0..1436 are `train`, the last 360 are `test`. Grey levels 0..16 become 0..255. Keys are
    `digits/<row of the whole set>`. The stored bytes are the 64 grey values of 0..255.
    """

    def __init__(self, source: DigitsSource) -> None:
        digits = load_digits()
        rows = {
            "train": range(TRAIN_ROWS),
            "test": range(TRAIN_ROWS, len(digits.target)),
            "all": range(len(digits.target)),
        }[source.split]
        keys = [f"digits/{row:04d}" for row in rows]
        labels = digits.target[rows.start : rows.stop].astype(np.int64)
        classes = [str(name) for name in digits.target_names]
        super().__init__(source, Rows(f"digits/{source.split}", keys, labels, classes))
        images = digits.images[rows.start : rows.stop]
        self._grey = np.rint(images * (255 / _MAX_GREY)).astype(np.uint8)

    def files(self) -> Sequence[Path]:
        """None: the images are part of scikit-learn."""
        return []

    def _read(self, row: int) -> bytes:
        return bytes(self._grey[row])

    def decoded(self, row: int, data: bytes) -> Image.Image:
        """See `RowsDataset`."""
        return Image.fromarray(self._grey[row]).convert("RGB")
