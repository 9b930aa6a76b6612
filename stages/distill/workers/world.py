"""The processes that train one student together."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor

from egapipe.pipeline.errors import EgapipeError, TrainingError


class OtherWorkerError(TrainingError):
    """This worker stops because another one does, which says why."""


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

    def trains(self, workers: int) -> bool:
        """Whether this process trains a student that so many workers train; else it checks only."""
        return workers == 0 or self.group is not None

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def share(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """This worker's contiguous part of a global batch; the parts differ by one row at most."""
        return np.array_split(rows, self.size)[self.rank]

    def agree(self, check: Callable[[], None]) -> None:
        """Run a check on every worker. If one raises, all stop: the others would wait for it.

        Raises what the check does, or OtherWorkerError.
        """
        error: EgapipeError | None = None
        try:
            check()
        except OtherWorkerError:
            # They agreed within: the others know.
            raise
        except EgapipeError as found:
            if found.agreed:
                raise
            error = found
        failed = 0
        if self.group is not None:
            flag = torch.full((), int(error is not None), device=self.device)
            failed = int(self.total(flag))
        if error is not None:
            error.agreed = self.group is not None
            raise error
        if failed:
            raise OtherWorkerError("another worker stopped")

    def average(self, gradients: Iterable[Tensor]) -> None:
        """Replace each tensor by its mean over the workers, in one all-reduce."""
        tensors = list(gradients)
        if self.group is None or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat, group=self.group)
        flat /= self.size
        for tensor, mean in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Give every worker the tensors of the main one."""
        if self.group is not None:
            for tensor in tensors:
                dist.broadcast(tensor, 0, group=self.group)

    def total(self, value: Tensor) -> Tensor:
        """The sum of a tensor over the workers, without gradient."""
        value = value.detach().clone()
        if self.group is not None:
            dist.all_reduce(value, group=self.group)
        return value
