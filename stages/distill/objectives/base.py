"""What an objective sees of a batch, what it is, and the weighted sum of several."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self, cast

import torch
from torch import Tensor, nn

from egapipe.stages.distill.objectives.balance import ENOUGH, Balance
from egapipe.stages.distill.objectives.shared.edges import Edges

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from egapipe.pipeline.config.objectives import Teaching
    from egapipe.stages.distill.objectives.start import Start

Scope = Literal["global", "local"]
Shape = tuple[int, ...]


class Sides(NamedTuple):
    """A pair of features on the same B rows, float [B, *shape] each; the shapes may differ."""

    student: Tensor
    teacher: Tensor


@dataclass(frozen=True, eq=False)
class Pair:
    """Student and teacher on the same B rows: everything an objective may see of one batch.

    student, teacher: float [B, D], the embeddings after their node layers.
    student_logits, teacher_logits: float [B, C].
    labels: int64 [B], -1 = unlabelled.
    rows: int64 [B], numbers of the rows in the data set. views: int64 [B], the teacher's.
    features: the pairs of features that objectives name, see `distill.features`.
    teacher_features: float [B, F], the teacher's stored features, standardised as configured.
    group: the workers that hold the other parts of the global batch; None: this is all of it.
    repeats: whether `rows` may name a row twice.
    edges: between rows that belong together, see `distill.edges`; of pairs of a data set, from the
    first to the second.
    turns: entries from one plain view to the next: of 4 the three in between are that view's turned
    copies, by 90, 180 and 270 degrees. They have no label.
    """

    student: Tensor
    teacher: Tensor
    student_logits: Tensor | None = None
    teacher_logits: Tensor | None = None
    labels: Tensor | None = None
    rows: Tensor | None = None
    features: Mapping[str, Sides] = field(default_factory=dict)
    teacher_features: Tensor | None = None
    group: ProcessGroup | None = None
    repeats: bool = False
    views: Tensor | None = None
    edges: Edges | None = None
    turns: int = 1

    def plain(self) -> Self:
        """The entries that are not turned: every fourth, where they come in fours."""
        if self.turns == 1:
            return self
        entries: dict[str, Any] = {
            name: value[:: self.turns]
            for name, value in vars(self).items()
            if torch.is_tensor(value)
        }
        features = {
            name: Sides(*(side[:: self.turns] for side in sides))
            for name, sides in self.features.items()
        }
        return replace(self, **entries, features=features, turns=1)

    @property
    def edge_scores(self) -> Tensor | None:
        """float32 [E]: of each edge the score that the data set's pairs have; 1 where there is none
        in them, and of the nearest rows."""
        return None if self.edges is None else self.edges.scores

    def need(self, name: str) -> Tensor:
        """A field that must not be None. Raises ValueError if it is."""
        value: Tensor | None = getattr(self, name)
        if value is None:
            raise ValueError(f"the batch lacks {name}")
        return value

    def sides(self, name: str) -> Sides:
        """A pair of features by name. Raises ValueError if the batch lacks it."""
        if name not in self.features:
            raise ValueError(f"the batch lacks the pair of features {name}")
        return self.features[name]

    def group_of(self, scope: Scope) -> ProcessGroup | None:
        """Whose rows a graph has: those of all workers ("global"), or of this one ("local")."""
        return self.group if scope == "global" else None


def no_anchors(kind: str, count: int) -> Tensor:
    """Raises ValueError: of a training without features."""
    raise ValueError(f"{count} anchors ({kind}) are of a teacher's features, and there are none")


@dataclass(frozen=True, eq=False)
class Facts:
    """What an objective may want to know of a training when it is built.

    student_dim, teacher_dim: widths of the embeddings after their node layers.
    labels: int64 [N], of every row of the data set that training may use, -1 = unlabelled.
    seed: of everything the objective draws; the same on every worker.
    shapes: of the pairs of features that objectives name, what a row has of student and teacher.
    teacher_features: width F of the teacher's stored features.
    turns: of the entries of a batch, see `Pair`.
    views_per_row: entries of a row, behind each other.
    steps: of the whole training.
    anchors: ("queue" or "kmeans", count) to rows of such features [M, F], M at most the count, see
    `egapipe.stages.distill.data.features.anchors`; the same on every worker.
    """

    student_dim: int
    teacher_dim: int
    labels: Tensor
    seed: int = 0
    shapes: Mapping[str, tuple[Shape, Shape]] = field(default_factory=dict)
    teacher_features: int = 0
    turns: int = 1
    views_per_row: int = 1
    steps: int = ENOUGH
    anchors: Callable[[str, int], Tensor] = no_anchors


def required(name: str, facts: Facts | None) -> Facts:
    """The facts of a training, for an objective that needs them. Raises ValueError for none."""
    if facts is None:
        raise ValueError(f"{name} is built for a training: give build_objective its facts")
    return facts


class Objective(nn.Module, ABC):
    """One distillation loss. `needs` names the fields of `Pair` that must not be None, `features`
    the pairs of features that it compares. `turned`: it compares turned views too; the others see
    those that are plain alone.

    An objective may have parameters, which are optimised with the student's, and buffers, which are
    kept in checkpoints. `replicated` names those that are equal on all workers without being sent:
    DistributedDataParallel need not broadcast them. `reused` names the parts of the student's head
    that are the teacher's: its head learns first, they are taken over from it, and stay as they
    are.

    `fitted`: it begins with what it finds in stored features, and so compares with the store alone.
    `views_per_row`: of a row it compares so many plain views with each other. `local_statistics`:
    it normalises over a worker's rows, unless `distill.sync_batchnorm` is set. `joins_pairs`: its
    edges are those of `dataset.pairs`, and no nearest rows.

    With several workers each returns the same value, the loss of the global batch, and the MEAN
    over workers of the parameters' gradients, as DistributedDataParallel takes it, is the gradient
    of that loss. An objective that ignores the group returns the loss of its own rows: then the
    mean of the workers' losses is minimised.
    """

    needs: frozenset[str]
    features: tuple[str, ...] = ()
    replicated: ClassVar[frozenset[str]] = frozenset()
    reused: ClassVar[frozenset[str]] = frozenset()
    turned: ClassVar[bool] = False
    fitted: ClassVar[bool] = False
    views_per_row: ClassVar[int] = 1
    local_statistics: ClassVar[bool] = False
    joins_pairs: ClassVar[bool] = False

    @classmethod
    def build(cls, options: Any, facts: Facts | None) -> Self:
        """The objective with the options of the configuration; most need no facts.

        Raises UsageError where the facts do not allow the options.
        """
        del facts
        return cls(options)

    def fit(self, start: Start) -> None:
        """Fit a part of its own on stored features, once, before the student starts.

        Every worker does the whole of it, and has the first one's parameters then: another machine
        rounds otherwise. A training that goes on from a checkpoint has them from there.
        """

    def projected(self, node: Tensor) -> Tensor:
        """What its student is compared by, [B, D'], made of the node [B, D]: the node itself,
        unless the objective projects it. `forward` is given the result. A teacher that learns
        beside the student is compared by what its own objective of the same name makes of its node.
        """
        return node

    @abstractmethod
    def forward(self, pair: Pair) -> Tensor:
        """The loss of a batch: a scalar, float32 or float64."""

    @property
    def steady(self) -> bool:
        """Whether its next steps launch the same operations on tensors of the same shapes: only
        then may a step be recorded as a CUDA graph."""
        return True


class WeightedSum(nn.Module):
    """sum_i weight_i * objective_i. None at all is allowed: cross-entropy alone."""

    def __init__(
        self,
        objectives: Mapping[str, Objective],
        weights: Mapping[str, float | Literal["auto"]],
        graphs: Collection[str] = (),
        ratios: Mapping[str, float] | None = None,
        sides: Mapping[str, Teaching] | None = None,
    ) -> None:
        """graphs: names of those whose loss is over a graph of rows. ratios: of those whose weight
        is "auto", see `Balance`. sides: whom each one's student is compared with; default: the
        store's teacher."""
        super().__init__()
        self.sides: dict[str, Teaching] = {
            name: (sides or {}).get(name, "store") for name in objectives
        }
        self.graphs = frozenset(graphs)
        self.graph_needs = frozenset[str]().union(*(objectives[n].needs for n in self.graphs))
        """Fields of `Pair` that the graphs are of."""
        self.graph_features = any(objectives[name].features for name in self.graphs)
        """Whether one is of a pair of features."""
        self.objectives = nn.ModuleDict(objectives)
        given = {name: weights[name] for name in objectives}
        self.weights = {name: weight for name, weight in given.items() if weight != "auto"}
        automatic = [name for name in given if name not in self.weights]
        self.balance = Balance({n: (ratios or {})[n] for n in automatic}) if automatic else None
        live = [o for name, o in objectives.items() if self.sides[name] != "store"]
        stored = [o for name, o in objectives.items() if self.sides[name] == "store"]
        self.needs = frozenset[str]().union(*(objective.needs for objective in stored))
        """Fields of `Pair`, of student and store."""
        self.live_needs = frozenset[str]().union(*(objective.needs for objective in live))
        """Of a student and another one."""
        self.replicated = frozenset(
            f"objectives.{name}.{buffer}"
            for name, objective in objectives.items()
            for buffer in objective.replicated
        ) | frozenset(() if self.balance is None else ("balance.norms", "balance.steps"))
        """Names, among `named_buffers()`, of those that need no broadcast."""
        self.reused = frozenset[str]().union(*(o.reused for o in objectives.values()))

    def projections(self, node: Tensor) -> dict[str, Tensor]:
        """What each objective that has no stored teacher makes of a student's node, see
        `Objective.projected`."""
        live = {name: self.objectives[name] for name, side in self.sides.items() if side != "store"}
        return {name: cast(Objective, one).projected(node) for name, one in live.items()}

    def forward(
        self,
        pair: Pair,
        graph: Pair | None = None,
        live: Mapping[str, Sequence[Pair]] = MappingProxyType({}),
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum, and each objective's value by name, detached and not weighted; automatic weights
        by the name of the objective and `_weight`.

        pair: of the student and the store. graph: what objectives over a graph see in its place,
        whose plain views are part of it. live: of objectives with other teachers, a pair with each
        of them, the student's side projected; their mean counts. An empty sum is a zero without a
        gradient. Raises ValueError when a pair lacks what `needs` asks for.
        """
        _check_needs(self.objectives, pair, self.needs)
        total = torch.zeros((), device=pair.student.device)
        values: dict[str, Tensor] = {}
        for name, module in self.objectives.items():
            objective = cast(Objective, module)
            pairs, own = self._pairs_of(name, pair, graph, live)
            factor: float | Tensor | None = self.weights.get(name)
            if factor is None:
                # All of them have one student.
                first = self._balance.tap(name, pairs[0], own)
                student, logits = first.student, first.student_logits
                pairs = [replace(one, student=student, student_logits=logits) for one in pairs]
                factor = values[f"{name}_weight"] = self._balance.weight(name)
            if name not in live:
                pairs = [replace(one, student=objective.projected(one.student)) for one in pairs]
            found = [objective(one) for one in pairs]
            value = found[0] if len(found) == 1 else torch.stack(found).mean()
            if isinstance(factor, Tensor):
                factor = factor.to(value.dtype)
            total = total + factor * value
            values[name] = value.detach()
        return total, values

    def _pairs_of(
        self, name: str, pair: Pair, graph: Pair | None, live: Mapping[str, Sequence[Pair]]
    ) -> tuple[list[Pair], int]:
        """What an objective sees, and how many rows of it are of the batch."""
        objective = cast(Objective, self.objectives[name])
        pairs = [one if objective.turned else one.plain() for one in live.get(name, [pair])]
        own = len(pairs[0].student)
        if name in live:
            _check_needs([name], pairs[0], objective.needs)
        elif graph is not None and name in self.graphs:
            pairs = [graph]
        return pairs, own

    @property
    def _balance(self) -> Balance:
        if self.balance is None:
            raise ValueError("no weight is automatic")
        return self.balance


def _check_needs(names: Iterable[str], pair: Pair, needs: Iterable[str]) -> None:
    missing = sorted(name for name in needs if getattr(pair, name) is None)
    if missing:
        raise ValueError(f"{', '.join(names)}: the batch lacks {', '.join(missing)}")
