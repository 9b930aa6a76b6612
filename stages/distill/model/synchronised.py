"""Batch normalisation over the rows of all workers (`distill.sync_batchnorm`).

torch's SyncBatchNorm does the same on GPUs alone; this one runs wherever the group does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from egapipe.pipeline.errors import UsageError
from egapipe.stages.distill.students.frozen import frozen_parts

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def has_batch_statistics(module: nn.Module) -> bool:
    """Whether a training normalises by statistics of a worker's own rows somewhere in a module."""
    frozen = {part for root in frozen_parts(module) for part in root.modules()}
    return any(_is_local(part) for part in module.modules() if part not in frozen)


def synchronise(module: nn.Module, group: ProcessGroup, *, compiled: bool = False) -> None:
    """Let the batch normalisations of a module work on the rows of all workers, in place.

    In training mode each of them then gives what it would give one worker with all rows, however
    unevenly the workers share them, to rounding; all must call it together. Names, weights and
    running statistics stay where they are. compiled: the module is called through torch.compile.
    Raises UsageError for one that normalises in a way of its own.
    """
    for name, part in module.named_modules():
        if not _is_local(part):
            continue
        kind = type(part)
        if kind.forward is not _BatchNorm.forward:
            raise UsageError(
                f"distill.sync_batchnorm knows the batch normalisations of torch.nn, and {name} of "
                f"the student is {kind.__module__}.{kind.__name__}: set it to false, or build the "
                "student with torch's"
            )
        part.__class__ = type(kind.__name__, (_Synchronised, kind), {})
        cast(_Synchronised, part).group = group
        if compiled:
            # The collectives would be traced with the rest.
            part.forward = torch.compiler.disable(part.forward)


def _is_local(part: nn.Module) -> bool:
    return isinstance(part, _BatchNorm) and not isinstance(part, nn.SyncBatchNorm | _Synchronised)


class _Synchronised(_BatchNorm):
    group: ProcessGroup

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, ...] of this worker, normalised over B and what follows C of all workers."""
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)  # type: ignore[no-untyped-call]
        output, mean, variance, count = _Normalise.apply(  # type: ignore[no-untyped-call]
            input, self.weight, self.bias, self.eps, self.group
        )
        self._count(mean, variance * count / (count - 1).clamp(min=1))
        return cast(Tensor, output)

    @torch.no_grad()
    def _count(self, mean: Tensor, variance: Tensor) -> None:
        share: float | Tensor = 0.0 if self.momentum is None else self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:
                share = 1.0 / self.num_batches_tracked
        for running, value in ((self.running_mean, mean), (self.running_var, variance)):
            if running is not None:
                running.lerp_(value.to(running.dtype), share)


class _Normalise(torch.autograd.Function):
    """y = w (x - m) / sqrt(v + eps) + b, with mean m and variance v of all workers' rows.

    Forward, each worker's count, mean and sum of squares about its own mean are gathered, and
    joined as Chan, Golub and LeVeque (1979) do: no large squares are subtracted. Backward, the sums
    of dL/dy and of dL/dy times the normalised x are added up; w and b get this worker's part.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
        group: ProcessGroup,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        values = _wide(x)
        mean, variance, count = _joined(*_moments(values), group)
        scale = (variance + eps).rsqrt()
        output = (values - _along(mean, values)) * _along(scale, values)
        if weight is not None:
            output = output * _along(weight, values)
        if bias is not None:
            output = output + _along(bias, values)
        ctx.save_for_backward(x, weight, mean, scale, count)
        ctx.group = group
        ctx.mark_non_differentiable(mean, variance, count)
        return output.to(x.dtype), mean, variance, count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, count = ctx.saved_tensors
        values, gradient = _wide(x), _wide(grads[0])
        unit = (values - _along(mean, values)) * _along(scale, values)
        dims = [0, *range(2, values.dim())]
        own = torch.stack([gradient.sum(dims), (gradient * unit).sum(dims)])
        by_weight, by_bias = own[1], own[0]
        by_x = None
        if ctx.needs_input_grad[0]:
            total = own.clone()
            dist.all_reduce(total, group=ctx.group)
            shift, slope = total / count
            by_x = gradient - _along(shift, values) - unit * _along(slope, values)
            by_x = by_x * _along(scale if weight is None else scale * weight, values)
            by_x = by_x.to(x.dtype)
        return (
            by_x,
            by_weight if ctx.needs_input_grad[1] else None,
            by_bias if ctx.needs_input_grad[2] else None,
            None,
            None,
        )


def _wide(x: Tensor) -> Tensor:
    """In float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _moments(x: Tensor) -> tuple[Tensor, Tensor, int]:
    """Of each channel of [B, C, ...] mean and sum of squares about it, and the count of numbers."""
    count = x.numel() // x.shape[1]
    if count == 0:
        return x.new_zeros(x.shape[1]), x.new_zeros(x.shape[1]), 0
    variance, mean = torch.var_mean(x, [0, *range(2, x.dim())], correction=0)
    return mean, variance * count, count


def _joined(
    mean: Tensor, squares: Tensor, count: int, group: ProcessGroup
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance [C] and the count of all workers, the same bits on each."""
    own = torch.cat([mean.double(), squares.double(), mean.new_tensor([count]).double()])
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, own, group=group)
    each = torch.stack(parts)
    channels = len(mean)
    means, spreads, counts = each[:, :channels], each[:, channels:-1], each[:, -1:]
    total = counts.sum()
    middle = (counts * means).sum(0) / total
    spread = (spreads + counts * (means - middle) ** 2).sum(0) / total
    return middle.to(mean.dtype), spread.to(mean.dtype), total.to(mean.dtype)


def _along(channels: Tensor, x: Tensor) -> Tensor:
    """[C] in a shape that goes with [B, C, ...]."""
    return channels.view(1, -1, *[1] * (x.dim() - 2))
