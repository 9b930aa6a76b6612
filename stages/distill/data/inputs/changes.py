"""What becomes of a step's images behind crop and flip: colours, and mixtures."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from torch import Tensor

from egapipe.pipeline.config.distill import DistillConfig
from egapipe.pipeline.views import Hashes
from egapipe.stages.distill.data.batch import Batch
from egapipe.stages.distill.data.inputs.colours import FACTORS, jitter_factors, jittered
from egapipe.stages.distill.data.inputs.crops import Size
from egapipe.stages.distill.data.inputs.mixing import COLUMNS, mixed, mixtures, own_half, partners
from egapipe.stages.distill.workers.world import World

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Changes:
    """The changes of a training, drawn on the host as whole numbers and made on the device.

    hashes: uint64 [N] of all rows' keys. size: (height, width) of the student's images.
    """

    config: DistillConfig
    hashes: Hashes
    size: Size

    @property
    def columns(self) -> int:
        """Numbers that are drawn for a row; 0 where nothing is changed."""
        jitter, mix = self.config.jitter, self.config.mix
        return FACTORS * (jitter is not None) + COLUMNS * (mix is not None)

    def share(self, column: Ints, world: World) -> Ints:
        """A worker's part of a column [B] of a global batch: its rows, and behind them those that
        they are mixed with, where they are."""
        own = world.share(column)
        if self.config.mix is None:
            return own
        return np.concatenate([own, world.share(partners(column))])

    def draw(self, rows: Ints, k: Ints) -> Ints:
        """int64 [B, columns] of view `k` of each row: a pure function of (seed, key, k)."""
        seed, hashes, parts = self.config.seed, self.hashes[rows], [np.empty((len(rows), 0), int)]
        if self.config.jitter is not None:
            parts.append(jitter_factors(self.config.jitter, seed, hashes, k))
        if self.config.mix is not None:
            parts.append(mixtures(self.config.mix, seed, hashes, k, self.size))
        return np.concatenate(parts, axis=1).astype(np.int64)

    def made(self, batch: Batch, drawn: Tensor) -> Batch:
        """A batch of the rows of `share`, with the changes that `draw` says, [B, columns]."""
        if self.config.jitter is not None:
            batch = replace(batch, images=jittered(batch.images, drawn[:, :FACTORS]))
        if self.config.mix is None:
            return batch
        own = drawn[: len(batch.rows) // 2, -COLUMNS:]
        return mixed(batch, own, teacher=self.config.mix.teacher == "mixed")

    def bare(self, batch: Batch) -> Batch:
        """The rows themselves of such a batch, with nothing changed."""
        return batch if self.config.mix is None else own_half(batch)
