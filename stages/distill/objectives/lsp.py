"""Local structure preservation: how near each node's neighbours are (LSP), arXiv 2003.10477."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

import torch
from torch import Tensor

from egapipe.stages.distill.objectives.base import Facts, Objective, Pair, Sides
from egapipe.stages.distill.objectives.shared.autocast import full_precision
from egapipe.stages.distill.objectives.shared.directions import directions
from egapipe.stages.distill.objectives.shared.edges import Edges, log_softmax_into
from egapipe.stages.distill.objectives.shared.features import Shapes, pairs_of
from egapipe.stages.distill.objectives.shared.gather import global_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.distributed import ProcessGroup

    from egapipe.pipeline.config.objectives import LspOptions

Kernel = Literal["l1", "cosine", "poly", "l2", "rbf"]


def lsp_loss(
    student: Tensor,
    teacher: Tensor,
    edges: Edges,
    *,
    kernel: Kernel = "l1",
    mean: Literal["nodes", "edges"] = "nodes",
    group: ProcessGroup | None = None,
) -> Tensor:
    """mean_i KL(softmax_j k(t_i, t_j) || softmax_j k(s_i, s_j)) over the neighbours j of each node
    i, a scalar.

    student s: [B, D] and teacher t: [B, D'], without gradient. edges: from j to i, in the batch of
    all workers. kernel k: `l1` exp(-|x - y|_1 / 100), `cosine`, `poly` its square, `l2` |x - y|_2,
    `rbf` exp(-|x - y|_2^2 / 2). mean: over all nodes, of which one without neighbours adds 0, or
    over the edges.

    Source: Yang et al. 2020, eq. 3 to 5, whose own code is for TensorFlow; `l1` and the mean over
    nodes are DistillGCN's, the other kernels and the mean over edges those of efficient-gnns
    (Joshi et al. 2021, arXiv 2111.04964). Over the rows of all workers, which are gathered.
    Computed in float32 at least. No edges give 0. Raises ValueError for shapes that do not fit.
    """
    if student.dim() != 2 or teacher.dim() != 2 or len(student) != len(teacher):
        raise ValueError(
            f"LSP compares [B, D] with [B, D'], not {list(student.shape)} with "
            f"{list(teacher.shape)}"
        )
    student, teacher = global_rows([student, teacher.detach()], group)
    nodes = len(student)
    with full_precision(student, teacher) as (student, teacher):
        known, seen = (
            log_softmax_into(
                _KERNELS[kernel](x[edges.source], x[edges.target]), edges.target, nodes
            )
            for x in (teacher, student)
        )
        total = (known.exp() * (known - seen)).sum()
        return total / max(1, nodes if mean == "nodes" else len(edges.target))


def _cosine(x: Tensor, y: Tensor) -> Tensor:
    """[E]; zero for a zero row."""
    return (directions(x) * directions(y)).sum(dim=1)


def _distance(x: Tensor, y: Tensor) -> Tensor:
    """[E]; zero, with a zero gradient, where both are the same."""
    squares = (x - y).square().sum(dim=1)
    same = squares == 0
    return squares.masked_fill(same, 1).sqrt().masked_fill(same, 0)


_KERNELS: dict[Kernel, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": lambda x, y: (-(x - y).abs().sum(dim=1) / 100).exp(),
    "cosine": _cosine,
    "poly": lambda x, y: _cosine(x, y).square(),
    "l2": _distance,
    "rbf": lambda x, y: (-(x - y).square().sum(dim=1) / 2).exp(),
}


class Lsp(Objective):
    """`lsp_loss` of the nodes, or of pairs of features, added up, over the edges that
    `distill.edges` gives. Of maps and tokens all numbers of a row are one vector.

    A batch has few neighbours of its rows unless they are drawn together, as `sampler: neighbours`
    does. With peers as teachers, whose layer before stands beside each layer of the student, it is
    Alignahead (Guo et al. 2022, arXiv 2205.02468).
    """

    needs = frozenset({"student", "teacher", "edges"})

    def __init__(self, options: LspOptions, pairs: Shapes | None = None) -> None:
        """pairs: what a row has of those that are compared."""
        super().__init__()
        self.options = options
        self.features = tuple(pairs or ())

    @classmethod
    def build(cls, options: LspOptions, facts: Facts | None) -> Self:
        """Raises UsageError where there is no such pair of features."""
        return cls(options, pairs_of("lsp", options, facts))

    @property
    def steady(self) -> bool:
        """No: another batch has another number of edges."""
        return False

    def forward(self, pair: Pair) -> Tensor:
        """The loss of the batch of all workers."""
        if pair.edges is None:
            raise ValueError("the batch lacks edges")
        options = self.options
        sides = [Sides(*map(_rows, pair.sides(name))) for name in self.features]
        losses = [
            lsp_loss(*one, pair.edges, kernel=options.kernel, mean=options.mean, group=pair.group)
            for one in sides or [Sides(pair.student, pair.teacher)]
        ]
        return torch.stack(losses).sum()


def _rows(features: Tensor) -> Tensor:
    return features.flatten(1)
