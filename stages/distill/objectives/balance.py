"""Weights that follow from gradients: `weight: auto`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from egapipe.stages.distill.objectives.base import Pair

CE = "cross-entropy"
HORIZON = 1000
"""Steps that the running means look back; in the first ones all steps so far."""
ENOUGH = 800
"""Steps of a training whose objectives pull as strongly as its cross-entropy; see `ratio_within`.
"""
FIRST = 1e-3
"""Weight until both gradients were seen: in the first step, and while no row has had a label."""


class Balance(nn.Module):
    """Weights that keep objectives' gradients at the student's features at ratios of the
    cross-entropy's:

        w_k = ratio_k * mean ||dCE/df||_F / mean ||dL_k/df||_F

    with f [B, F], the backbone's features of the global batch, and running means over the steps
    before. What a loss weighs then depends neither on the batch size nor on the width of its
    embeddings. The norms are taken of gradients that the step computes anyway: `tap` marks where a
    loss enters the student's head, `observe` reads what arrived there. The means are buffers, and
    equal on all workers, whose squares are added up.

    Source: the gradient norms of GradNorm (Chen et al. 2018, arXiv 1711.02257) at the last shared
    layer, with given ratios in place of learned weights.
    """

    norms: Tensor
    steps: Tensor

    def __init__(self, ratios: Mapping[str, float]) -> None:
        """ratios: of the objectives whose weight is automatic."""
        super().__init__()
        self.ratios = dict(ratios)
        self.register_buffer("norms", torch.zeros(1 + len(ratios)))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self._taps: dict[str, tuple[Tensor | None, Tensor | None, int]] = {}
        self._weights: dict[str, Tensor] = {}

    def weight(self, name: str) -> Tensor:
        """An objective's weight in this step, a scalar without gradient."""
        norm = self.norms[1 + list(self.ratios).index(name)]
        # Both: a first batch may have no label, and a weight of 0 would never let go again.
        known = (norm > 0) & (self.norms[0] > 0)
        weight = self.ratios[name] * self.norms[0] / norm.masked_fill(~known, 1)
        self._weights[name] = weight.masked_fill(~known, FIRST)
        return self._weights[name]

    def tap(self, name: str, pair: Pair, rows: int) -> Pair:
        """The pair through which an objective's gradient is seen.

        rows: that are of this worker's batch; what an objective remembers comes behind them.
        """
        student = _alias(pair.student)
        logits = None if pair.student_logits is None else _alias(pair.student_logits)
        self._taps[name] = (student, logits, rows)
        return replace(pair, student=student, student_logits=logits)

    def tap_logits(self, logits: Tensor) -> Tensor:
        """The logits through which the cross-entropy's gradient is seen."""
        seen = _alias(logits)
        self._taps[CE] = (None, seen, len(seen))
        return seen

    @torch.no_grad()
    def observe(
        self,
        to_features: Callable[[Tensor | None, Tensor | None], Tensor],
        scale: Tensor,
        total: Callable[[Tensor], Tensor],
    ) -> None:
        """Take in what a backward pass has left.

        to_features: gradients by node [B, D] and logits [B, C], each None where there is none, to
        that by the features [B, F]. scale: of the loss. total: sums over the workers. A step whose
        gradients are not finite is not counted.
        """
        squares = [self._square(name, to_features) for name in (CE, *self.ratios)]
        factors = [scale, *(scale * self._weights[name] for name in self.ratios)]
        norms = total(torch.stack(squares)).sqrt() / torch.stack(factors)
        share = (1.0 / (self.steps + 1)).clamp(min=1.0 / HORIZON)
        sound = norms.isfinite().all()
        moved = self.norms + (norms.to(self.norms.dtype) - self.norms) * share
        self.norms.copy_(torch.where(sound, moved, self.norms))
        self.steps += sound

    def _square(
        self,
        name: str,
        to_features: Callable[[Tensor | None, Tensor | None], Tensor],
    ) -> Tensor:
        """||dL/df||_F^2 over this worker's rows."""
        *taps, rows = self._taps[name]
        grads = [None if t is None or t.grad is None else t.grad[:rows] for t in taps]
        if all(grad is None for grad in grads):
            return torch.zeros((), device=self.norms.device)
        return to_features(*grads).square().sum()


def ratio_within(steps: int) -> float:
    """The ratio of a training of so many steps where nobody names one: sqrt(steps / ENOUGH), 1 at
    most. In few steps a student learns little of its labels beside a strong pull (docs/recipes.md).
    """
    return math.sqrt(min(1.0, steps / ENOUGH))


def _alias(tensor: Tensor) -> Tensor:
    """The same numbers under a name of their own, which keeps its gradient where it has one."""
    if not tensor.requires_grad:
        return tensor
    alias = tensor.view_as(tensor)
    alias.retain_grad()
    return alias
