"""scikit-learn's handwritten digits: real images that need no download."""

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from egapipe.pipeline.config.data import DigitsSource
from egapipe.pipeline.datasets.decoding.images import Divisor
from egapipe.pipeline.datasets.rows import Rows, RowsDataset
from egapipe.pipeline.errors import UsageError

TRAIN_ROWS = 1437
_MAX_GREY = 16
_CLASSES = 10


class DigitsDataset(RowsDataset):
    """1,797 grey images of 8 x 8 pixels (UCI optical recognition of handwritten digits, test part).

    Rows 0..1436 are `train`, the last 360 are `test`. Grey levels 0..16 become 0..255. Keys are
    `digits/<row of the whole set>`. The stored bytes are the 64 grey values of 0..255.
    """

    def __init__(self, source: DigitsSource) -> None:
        grey, labels = _digits()
        rows = {
            "train": range(TRAIN_ROWS),
            "test": range(TRAIN_ROWS, len(labels)),
            "all": range(len(labels)),
        }[source.split]
        keys = [f"digits/{row:04d}" for row in rows]
        classes = [str(digit) for digit in range(_CLASSES)]
        of_split = labels[rows.start : rows.stop].copy()
        super().__init__(source, Rows(f"digits/{source.split}", keys, of_split, classes))
        self._grey = grey[rows.start : rows.stop]

    def files(self) -> Sequence[str | Path]:
        """None: the images are part of scikit-learn."""
        return []

    def _read(self, row: int) -> bytes:
        return bytes(self._grey[row])

    def decoded(self, row: int, data: bytes, divisor: Divisor | None = None) -> Image.Image:
        """See `RowsDataset`."""
        return Image.fromarray(self._grey[row]).convert("RGB")


@cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Grey values 0..255, uint8 [1797, 8, 8], and labels, int64 [1797].

    They are read from scikit-learn's file: its import takes longer than all else that the
    quickstart does before its first image. Raises UsageError if the file is not there.
    """
    found = find_spec("sklearn")
    folders = found.submodule_search_locations if found is not None else None
    file = Path(next(iter(folders or [""]))) / "datasets" / "data" / "digits.csv.gz"
    if not file.is_file():
        raise UsageError(
            f"the digits are part of scikit-learn, and {file} is not there: install scikit-learn"
        )
    table = np.loadtxt(file, delimiter=",")
    grey = np.rint(table[:, :-1].reshape(-1, 8, 8) * (255 / _MAX_GREY)).astype(np.uint8)
    return grey, table[:, -1].astype(np.int64)
