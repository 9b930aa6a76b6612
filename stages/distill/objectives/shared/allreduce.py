"""Sums over the rows of all workers, through which gradients flow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def count_workers(group: ProcessGroup | None) -> int:
    """Workers of a group; 1 without one."""
    return 1 if group is None else dist.get_world_size(group)


def global_sums(tensors: Sequence[Tensor], group: ProcessGroup | None) -> list[Tensor]:
    """Each tensor summed over the workers of `group`, in one all-reduce for all of them.

    Every worker must call it, with the same shapes, one dtype and one device, even for no rows. The
    gradient follows the convention of `Objective`: every worker goes on to compute the same loss
    from the sums, and the mean over workers of the parameters' gradients is that loss's gradient.
    """
    if count_workers(group) == 1:
        return list(tensors)
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    total = cast(Tensor, _AllReduce.apply(flat, group))  # type: ignore[no-untyped-call]
    parts = torch.split(total, [tensor.numel() for tensor in tensors])
    return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]


def global_mean(losses: Tensor, group: ProcessGroup | None) -> Tensor:
    """Mean over the rows of all workers of one loss a row, [b] on this worker; 0 without any row.

    The gradient follows the convention of `global_sums`.
    """
    total, rows = global_sums([losses.sum(), losses.new_full((), len(losses))], group)
    return total / rows.clamp(min=1)


class _AllReduce(torch.autograd.Function):
    """Sum over workers. The backward pass multiplies by their number.

    Strictly it is the sum of the workers' incoming gradients. They are the same on each, since each
    computes the same loss from the same sums, so the product equals it. It needs no communication,
    which in a backward pass could also meet DistributedDataParallel's in another order and hang.
    """

    @staticmethod
    def forward(ctx: Any, local: Tensor, group: ProcessGroup) -> Tensor:
        ctx.workers = dist.get_world_size(group)
        total = local.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * ctx.workers, None
