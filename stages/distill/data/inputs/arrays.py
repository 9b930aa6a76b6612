"""Arrays as batches: the ready-made variants of rows, on the device or read as they are needed."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from egapipe.pipeline.config.data import ArrayType, ViewsConfig
from egapipe.pipeline.datasets import Dataset
from egapipe.pipeline.datasets.kinds.arrays.stored import Arrays
from egapipe.pipeline.errors import ImageError
from egapipe.pipeline.views import CLEAN, Hashes, further_draws
from egapipe.stages.distill.data.inputs.pixels import DecodedRows

Ints = npt.NDArray[np.int64]


def variant_numbers(plan: ViewsConfig, hashes: Hashes, k: int | Ints, variants: int) -> Ints:
    """Which of the variants of each row is its view `k` under a plan, int64 [N].

    The first is the clean view, and a plan's views are those behind it, in their order. Further
    views are drawn among these by (seed, key, k), and are the first where there is no other.
    """
    ks = np.broadcast_to(np.asarray(k, dtype=np.int64), hashes.shape)
    if variants == 1:
        return np.zeros(len(hashes), dtype=np.int64)
    drawn = further_draws(plan.seed, hashes, ks, 0, 1)[:, 0]
    others = 1 + np.floor(drawn * (variants - 1)).astype(np.int64)
    return np.where(ks <= plan.count, ks, others)


class ResidentArrays:
    """All variants of all rows on the device. See `Images`."""

    threads = 0

    def __init__(
        self, rows: DecodedRows, hashes: Hashes, arrays: Arrays, device: torch.device
    ) -> None:
        """rows: [N, V, *shape]. hashes: uint64 [N] of `key_hashes`."""
        self.frame: ArrayType = arrays.type
        self.values = torch.from_numpy(np.array(rows.values)).to(device)
        """[N, V, *shape]."""
        self._unreadable = rows.unreadable
        self._hashes = hashes

    def __len__(self) -> int:
        return len(self.values)

    def clean(self, rows: Ints) -> Tensor:
        """The first variant of each row, [B, *shape]. Raises ImageError."""
        return self.batch(rows, ViewsConfig(), CLEAN)

    def batch(self, rows: Ints, plan: ViewsConfig, k: int | Ints) -> Tensor:
        """View `k` of each row, [B, *shape], see `variant_numbers`. Raises ImageError."""
        self.check_readable(rows)
        numbers = variant_numbers(plan, self._hashes[rows], k, self.values.shape[1])
        device = self.values.device
        index, variant = (torch.from_numpy(one).to(device) for one in (rows, numbers))
        return self.values[index, variant]

    def check_readable(self, rows: Ints) -> None:
        """Raise ImageError if one of the rows has no array."""
        for row in self._unreadable.keys() & set(rows.tolist()) if self._unreadable else ():
            raise ImageError(self._unreadable[row])


class StreamedArrays:
    """Arrays read from the data set each time, by the loader's threads. See `Images`."""

    def __init__(
        self, dataset: Dataset, hashes: Hashes, arrays: Arrays, device: torch.device, threads: int
    ) -> None:
        self.threads = threads
        self.frame: ArrayType = arrays.type
        self._variants = arrays.variants
        self._dataset = dataset
        self._hashes = hashes
        self._device = device

    def clean(self, rows: Ints) -> Tensor:
        """The first variant of each row, [B, *shape]. Raises ImageError."""
        return self.batch(rows, ViewsConfig(), CLEAN)

    def batch(self, rows: Ints, plan: ViewsConfig, k: int | Ints) -> Tensor:
        """View `k` of each row, [B, *shape], see `variant_numbers`. Raises ImageError."""
        numbers = variant_numbers(plan, self._hashes[rows], k, self._variants)
        found = {int(row): self._dataset.array(int(row)) for row in np.unique(rows)}
        parts = [found[row][number] for row, number in zip(rows.tolist(), numbers, strict=True)]
        batch = torch.from_numpy(np.stack(parts))
        if self._device.type == "cuda":
            batch = batch.pin_memory()
        return batch.to(self._device, non_blocking=True)
