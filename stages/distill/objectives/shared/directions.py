"""Vectors without their length."""

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable


def directions(vectors: Tensor) -> Tensor:
    """Vectors [..., D], scaled to unit norm. A zero vector stays zero, without a gradient.

    Shape and dtype are kept. NaN and infinite entries make their vector NaN.
    """
    return unit(vectors / scale(vectors), torch.finfo(vectors.dtype).eps)


def scale(vectors: Tensor) -> Tensor:
    """Largest absolute entry of each vector, [..., 1], without gradient and never zero.

    A direction does not depend on the length, so dividing by it changes no gradient. Squares then
    neither overflow nor vanish, and rounding errors have a known size.
    """
    if vectors.numel() == 0:
        return vectors.new_ones(*vectors.shape[:-1], 1)
    least = torch.finfo(vectors.dtype).tiny ** 0.5
    return vectors.detach().abs().amax(dim=-1, keepdim=True).clamp_min(least)


def unit(vectors: Tensor, least: float) -> Tensor:
    """Vectors [..., D] over their norms; zero, without a gradient, up to the norm `least`."""
    return cast(Tensor, _Unit.apply(vectors, least))  # type: ignore[no-untyped-call]


class _Unit(Function):
    """By hand, to keep the result for the backward pass and not the vectors beside it."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, least: float) -> Tensor:
        norm = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
        inverse = norm.reciprocal().masked_fill(norm <= least, 0)
        result: Tensor = vectors * inverse
        ctx.save_for_backward(result, inverse)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        result, inverse = ctx.saved_tensors
        along = torch.einsum("...d,...d->...", grads[0], result)[..., None]
        return torch.addcmul(grads[0], result, along, value=-1).mul_(inverse), None
