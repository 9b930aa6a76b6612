"""A value whose gradient is known when it is computed."""

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor
from torch.autograd import Function


def with_gradients(value: Tensor, known: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """A scalar as a function of some inputs: `known` holds each with the gradient by it.

    For a loss whose backward pass would have to communicate, or would need again what has been
    changed since.
    """
    inputs = [tensor for tensor, _ in known]
    gradients = [gradient.detach() for _, gradient in known]
    return cast(Tensor, _Known.apply(value.detach(), *inputs, *gradients))  # type: ignore[no-untyped-call]


class _Known(Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors[len(tensors) // 2 :])
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        known = ctx.saved_tensors
        return None, *(grads[0] * gradient for gradient in known), *(None for _ in known)
