"""Images that do harm: a real data set in which some rows end, hang or fill their process."""

import os
import time
from typing import Any

from PIL import Image

from egapipe.pipeline.config.data import DigitsSource
from egapipe.pipeline.datasets.kinds.digits import DigitsDataset
from egapipe.pipeline.datasets.rows import reopened
from tests.stages.extract.decoding.harm import Harm, do


class Poison(DigitsDataset):
    """Digits of which some rows do harm when their image is asked for, in whichever process."""

    def __init__(self, source: DigitsSource, harm: Harm) -> None:
        super().__init__(source)
        self.harm = dict(harm)

    def __reduce__(self) -> tuple[Any, ...]:
        return reopened(type(self), self.source, self.harm)

    def image(self, row: int) -> Image.Image:
        if row in self.harm:
            do(self.harm[row])
        return super().image(row)


class Gated(DigitsDataset):
    """Digits of which those from a row on wait as long as a file is there."""

    def __init__(self, source: DigitsSource, gate: str, first: int) -> None:
        super().__init__(source)
        self.gate, self.first = gate, first

    def __reduce__(self) -> tuple[Any, ...]:
        return reopened(type(self), self.source, self.gate, self.first)

    def image(self, row: int) -> Image.Image:
        while row >= self.first and os.path.exists(self.gate):
            time.sleep(0.05)
        return super().image(row)
