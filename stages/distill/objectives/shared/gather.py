"""The rows of all workers, through which gradients flow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist
from torch import Tensor

from egapipe.stages.distill.objectives.shared.allreduce import count_workers

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def global_rows(tensors: Sequence[Tensor], group: ProcessGroup | None) -> list[Tensor]:
    """Each tensor [b, ...] with the rows of all workers, [B, ...], in the order of their ranks.

    The tensors have the same b rows; b may differ between workers and be 0. Every worker must call
    it, with the same widths, dtypes and kind of device. One small exchange finds each worker's b,
    then there is one a tensor. The gradient follows the convention of `Objective`: every worker
    goes on to compute the same loss from all rows, and the mean over workers of the parameters'
    gradients is that loss's gradient.
    """
    if count_workers(group) == 1:
        return list(tensors)
    counts = _row_counts(tensors[0], cast("ProcessGroup", group))
    return [
        cast(Tensor, _Gather.apply(tensor, counts, group))  # type: ignore[no-untyped-call]
        if tensor.requires_grad
        else _gathered(tensor, counts, cast("ProcessGroup", group))
        for tensor in tensors
    ]


class _Gather(torch.autograd.Function):
    """Rows of all workers. The backward pass takes its own rows' gradient times their number.

    Strictly it is the sum over workers of what came in for these rows. They are the same on each,
    since each computes the same loss from the same rows: no communication, as in `_AllReduce`.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: list[int], group: ProcessGroup) -> Tensor:
        rank = dist.get_rank(group)
        ctx.own = slice(sum(counts[:rank]), sum(counts[: rank + 1]))
        ctx.workers = len(counts)
        return _gathered(rows, counts, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0][ctx.own] * ctx.workers, None, None


def _gathered(rows: Tensor, counts: list[int], group: ProcessGroup) -> Tensor:
    most = max(counts)
    padded = rows.new_zeros(most, *rows.shape[1:])
    padded[: len(rows)] = rows.detach()
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded, group=group)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def _row_counts(rows: Tensor, group: ProcessGroup) -> list[int]:
    own = torch.full((1,), len(rows), device=rows.device)
    counts = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(counts, own, group=group)
    return cast("list[int]", torch.cat(counts).tolist())
