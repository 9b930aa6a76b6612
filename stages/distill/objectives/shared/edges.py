"""Sums and softmaxes over the edges into each node of a graph."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Edges(NamedTuple):
    """Directed edges between rows: int64 [E] each, places of the row that an edge comes from and of
    the one that it goes to, in the batch of all workers, those of the first worker first."""

    source: Tensor
    target: Tensor


def edges_among(rows: Tensor, neighbours: Tensor) -> Edges:
    """The edges into each row of a batch from those of its neighbours that the batch has.

    rows: int64 [B] of the data set; one may be there twice. neighbours: int [N, k], rows, -1 =
    none.
    """
    order = rows.argsort()
    ordered = rows[order]
    wanted = neighbours[rows].to(rows.dtype).reshape(-1)
    first = torch.searchsorted(ordered, wanted)
    count = torch.searchsorted(ordered, wanted, right=True) - first
    of_wanted = torch.arange(len(wanted), device=rows.device).repeat_interleave(count)
    within = torch.arange(len(of_wanted), device=rows.device) - (count.cumsum(0) - count)[of_wanted]
    return Edges(order[first[of_wanted] + within], of_wanted // max(1, neighbours.shape[1]))


def log_softmax_into(scores: Tensor, target: Tensor, nodes: int) -> Tensor:
    """[E]: scores [E] less the logarithm of the sum of exponentials over the edges into the same
    node. target: int64 [E]. nodes: how many there are."""
    least = scores.new_full((nodes,), -torch.inf)
    largest = least.scatter_reduce(0, target, scores.detach(), "amax")
    shifted = scores - largest[target]
    total = scores.new_zeros(nodes).index_add(0, target, shifted.exp())
    return shifted - total.log()[target]
