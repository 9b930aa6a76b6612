"""The processes that train one student together."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class World:
    """This process among its `size` workers; one process alone has no group."""

    rank: int
    size: int
    device: torch.device
    group: dist.ProcessGroup | None = None

    @classmethod
    def alone(cls, device: torch.device) -> Self:
        """One process, no communication."""
        return cls(0, 1, device)

    @classmethod
    def current(cls, device: torch.device) -> Self:
        """The initialised torch.distributed world (gloo on CPU, nccl on GPU)."""
        return cls(dist.get_rank(), dist.get_world_size(), device, dist.group.WORLD)

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def share(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """This worker's contiguous part of a global batch; the parts differ by one row at most."""
        return np.array_split(rows, self.size)[self.rank]

    def total(self, value: Tensor) -> Tensor:
        """The sum of a tensor over the workers, without gradient."""
        value = value.detach().clone()
        if self.group is not None:
            dist.all_reduce(value, group=self.group)
        return value
