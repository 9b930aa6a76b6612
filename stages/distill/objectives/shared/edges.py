"""Sums and softmaxes over the edges into each node of a graph."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Edges(NamedTuple):
    """Directed edges between rows: int64 [E] each, places of the row that an edge comes from and of
    the one that it goes to, in the batch of all workers, those of the first worker first. scores:
    float32 [E], what a data set says of each; None where nobody asked."""

    source: Tensor
    target: Tensor
    scores: Tensor | None = None


class Joined(NamedTuple):
    """Edges between the N rows of a data set: those out of row i are from starts[i] to
    starts[i + 1] - 1. starts: int64 [N + 1]. targets: int64 [M], rows. scores: float32 [M]."""

    starts: Tensor
    targets: Tensor
    scores: Tensor


def edges_joined(rows: Tensor, joined: Joined) -> Edges:
    """The edges of a data set between rows that a batch has, in the order of the rows that they
    come from. rows: int64 [B] of the data set; one may be there twice."""
    first = joined.starts[rows]
    of_row, within = _runs(joined.starts[rows + 1] - first)
    place = first[of_row] + within
    of_place, met = _met(rows, joined.targets[place])
    return Edges(of_row[of_place], met, joined.scores[place[of_place]])


def edges_among(rows: Tensor, neighbours: Tensor) -> Edges:
    """The edges into each row of a batch from those of its neighbours that the batch has.

    rows: int64 [B] of the data set; one may be there twice. neighbours: int [N, k], rows, -1 =
    none.
    """
    wanted = neighbours[rows].to(rows.dtype).reshape(-1)
    of_wanted, met = _met(rows, wanted)
    ones = torch.ones(len(met), device=rows.device)
    return Edges(met, of_wanted // max(1, neighbours.shape[1]), ones)


def _met(rows: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """int64 [E] each: places in `wanted`, in order, and of the same row in the batch, as often as
    it is there."""
    order = rows.argsort(stable=True)
    ordered = rows[order]
    first = torch.searchsorted(ordered, wanted)
    of_wanted, within = _runs(torch.searchsorted(ordered, wanted, right=True) - first)
    return of_wanted, order[first[of_wanted] + within]


def _runs(lengths: Tensor) -> tuple[Tensor, Tensor]:
    """int64 [sum of lengths] each: for every place of runs of such lengths, one behind the other,
    which run it is of, and its place within."""
    run = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)
    start = lengths.cumsum(0) - lengths
    return run, torch.arange(len(run), device=lengths.device) - start[run]


def log_softmax_into(scores: Tensor, target: Tensor, nodes: int) -> Tensor:
    """[E]: scores [E] less the logarithm of the sum of exponentials over the edges into the same
    node. target: int64 [E]. nodes: how many there are."""
    least = scores.new_full((nodes,), -torch.inf)
    largest = least.scatter_reduce(0, target, scores.detach(), "amax")
    shifted = scores - largest[target]
    total = scores.new_zeros(nodes).index_add(0, target, shifted.exp())
    return shifted - total.log()[target]
