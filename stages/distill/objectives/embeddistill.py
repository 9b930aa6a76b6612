"""Queries and documents as a teacher embeds and scores them: EmbedDistill, arXiv 2301.12005."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from egapipe.stages.distill.objectives.base import Facts, Objective, Pair, required
from egapipe.stages.distill.objectives.shared.autocast import full_precision
from egapipe.stages.distill.objectives.shared.directions import directions
from egapipe.stages.distill.objectives.shared.edges import Edges
from egapipe.stages.distill.objectives.shared.gather import global_rows
from egapipe.stages.distill.objectives.shared.shapes import check_rows

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from egapipe.pipeline.config.objectives import EmbeddistillOptions

Distance = Literal["l2", "cosine"]
Encoder = Literal["student", "teacher"]


def embeddistill_loss(
    student: Tensor,
    teacher: Tensor,
    edges: Edges,
    *,
    rows: Tensor | None = None,
    query_weight: float = 1.0,
    document_weight: float = 1.0,
    label_weight: float = 1.0,
    score_weight: float = 1.0,
    documents: Encoder = "student",
    distance: Distance = "l2",
    temperature: float = 1.0,
    group: ProcessGroup | None = None,
) -> Tensor:
    """query_weight mean_i |t_i - s_i|_2 + document_weight mean_j |t_j - s_j|_2
    + label_weight mean_(i,j) -log softmax_(j') (<s_i, d_j'> / T)_j
    + score_weight T^2 mean_i KL(softmax_j(<t_i, t_j> / T) || softmax_j(<s_i, d_j> / T)), a scalar.

    student s: [B, D], behind W where widths differ, and teacher t: [B, D], without gradient; d are
    the documents of `documents`: s, or with an asymmetric student t, where no document is matched
    and document_weight does not count. edges: from a query i to its document j, in the batch of all
    workers: queries are the rows that edges come from, documents those that they go to, and other
    rows take no part. Scores above 0 are the weights of the pairs (i, j) in their mean; one of 0 or
    less makes j a document to be told from i's. All documents of the batch are candidates, but in
    the third term those that also belong to i. rows: int64 [B] of the data set; a row is no
    candidate of its own. distance: `l2`, not squared, or `cosine`, 1 - cos(t, s).

    Source: Kim et al. 2023, of whom no code was found. The values were compared with those of
    sentence-transformers, which is not by the authors: EmbedDistillLoss, DistillKLDivLoss and its
    cross-entropy in the batch. There the distance is `cosine` by default, of queries and documents
    the mean, and scores are of directions; here both are added up and <,> is the plain product. The
    factor T^2 is that code's. Not of the paper here: generated queries, and a teacher that reads
    both at once (a cross-encoder).

    Over the rows of all workers, which are gathered: O(B^2) memory. Computed in float32 at least. A
    batch without an edge gives 0. Raises ValueError for shapes that do not fit.
    """
    check_rows("EmbedDistill", student, teacher)
    rows = torch.arange(len(student), device=student.device) if rows is None else rows
    student, teacher, rows = global_rows([student, teacher.detach(), rows], group)
    with full_precision(student, teacher) as (s, t):
        batch = _Roles.of(edges, rows)
        apart = _cosine(t, s) if distance == "cosine" else _norm(t - s)
        encoded = t if documents == "teacher" else s
        scores = s @ encoded.T / temperature
        total = query_weight * _mean(apart, batch.query)
        if documents == "student":
            total = total + document_weight * _mean(apart, batch.document)
        total = total + label_weight * _one_hot(scores, batch, edges)
        divergence = _divergence(t @ t.T / temperature, scores, batch.candidate)
        return total + score_weight * temperature**2 * _mean(divergence, batch.query)


class _Roles(NamedTuple):
    """query, document: bool [B], what a row is; it may be both. candidate: bool [B, B], documents
    that are not the query's own row. positive: bool [B, B], those that belong to the query."""

    query: Tensor
    document: Tensor
    candidate: Tensor
    positive: Tensor

    @classmethod
    def of(cls, edges: Edges, rows: Tensor) -> Self:
        """Of masks, whose shapes do not depend on values: a GPU is not waited for."""
        none = torch.zeros_like(rows, dtype=torch.bool)
        query, document = (none.index_fill(0, end, True) for end in (edges.source, edges.target))
        other = rows[:, None] != rows[None, :]
        positive = torch.zeros_like(other).index_put((edges.source, edges.target), _belongs(edges))
        return cls(query, document, other & document, positive)


def _belongs(edges: Edges) -> Tensor:
    """bool [E]."""
    if edges.scores is None:
        return torch.ones_like(edges.source, dtype=torch.bool)
    return edges.scores > 0


def _one_hot(scores: Tensor, batch: _Roles, edges: Edges) -> Tensor:
    """-log softmax of each pair's own document among those that are not the query's."""
    others = _masked(scores, batch.candidate & ~batch.positive).logsumexp(dim=1)
    own = scores[edges.source, edges.target]
    # log(1 + exp(x)) up to where float64 rounds it to x.
    losses = F.softplus(others[edges.source] - own, threshold=40)
    weights = _belongs(edges).to(losses.dtype)
    if edges.scores is not None:
        weights = edges.scores.to(losses.dtype).clamp(min=0)
    return (weights * losses).sum() / weights.sum().clamp(min=torch.finfo(losses.dtype).tiny)


def _divergence(known: Tensor, seen: Tensor, candidate: Tensor) -> Tensor:
    """KL(softmax(known) || softmax(seen)) over the candidates of each row, [B]."""
    p, q = (_masked(scores, candidate).log_softmax(dim=1) for scores in (known, seen))
    return (p.exp() * (p - q) * candidate).sum(dim=1)


def _masked(scores: Tensor, mask: Tensor) -> Tensor:
    """Scores without those that do not count; a row of none is finite, and constant."""
    return scores.masked_fill(~mask, torch.finfo(scores.dtype).min)


def _norm(vectors: Tensor) -> Tensor:
    """[B]; zero, with a zero gradient, of a zero vector."""
    squares = vectors.square().sum(dim=1)
    zero = squares == 0
    return squares.masked_fill(zero, 1).sqrt().masked_fill(zero, 0)


def _cosine(x: Tensor, y: Tensor) -> Tensor:
    """[B]: 1 - cos; 1 for a zero row."""
    return 1 - (directions(x) * directions(y)).sum(dim=1)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum().clamp(min=1)


class Embeddistill(Objective):
    """`embeddistill_loss` of the student's node and the teacher's stored features, over the edges
    of `dataset.pairs`, first to second.

    A linear layer W without bias takes the node to the features' width where it differs. Without
    it (`head.dim: null`, and a student of as many features) the student's own embeddings can be
    compared with the teacher's: it is asked queries, and the documents stay as they are.
    """

    needs = frozenset({"student", "teacher_features", "edges", "rows"})
    joins_pairs: ClassVar[bool] = True

    def __init__(self, options: EmbeddistillOptions, facts: Facts) -> None:
        super().__init__()
        self.options = options
        widths = facts.student_dim, facts.teacher_features
        one = widths[0] == widths[1]
        self.projector: nn.Module = nn.Identity() if one else nn.Linear(*widths, bias=False)

    @classmethod
    def build(cls, options: EmbeddistillOptions, facts: Facts | None) -> Self:
        """Raises ValueError without facts."""
        return cls(options, required("embeddistill", facts))

    @property
    def steady(self) -> bool:
        """No: another batch has another number of edges."""
        return False

    def forward(self, pair: Pair) -> Tensor:
        """The loss of the batch of all workers."""
        if pair.edges is None:
            raise ValueError("the batch lacks edges")
        options = self.options
        with full_precision(pair.student, pair.need("teacher_features")) as (student, teacher):
            return embeddistill_loss(
                self.projector(student),
                teacher,
                pair.edges,
                rows=pair.need("rows"),
                query_weight=options.query_weight,
                document_weight=options.document_weight,
                label_weight=options.label_weight,
                score_weight=options.score_weight,
                documents=options.documents,
                distance=options.distance,
                temperature=options.temperature,
                group=pair.group,
            )
