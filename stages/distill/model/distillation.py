"""Everything that learns, and one step's loss."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import cast

import torch
from torch import Tensor, nn

from egapipe.pipeline.config.features import GRID, FeaturesConfig
from egapipe.stages.distill.data.batch import Batch
from egapipe.stages.distill.model.cross_entropy import batch_cross_entropy, labels_counted
from egapipe.stages.distill.model.forward import AVERAGE, OWN, Forward, Learning, Live, Losses
from egapipe.stages.distill.model.memory import GraphMemory
from egapipe.stages.distill.model.precision import autocast
from egapipe.stages.distill.model.standardizer import Standardizer
from egapipe.stages.distill.model.student import Seen, Student, TeacherHead
from egapipe.stages.distill.objectives import Objective, Pair, Sides, WeightedSum
from egapipe.stages.distill.objectives.shared.edges import (
    Edges,
    Joined,
    edges_among,
    edges_joined,
)
from egapipe.stages.distill.objectives.shared.features import renamed
from egapipe.stages.distill.objectives.shared.gather import global_rows
from egapipe.stages.distill.workers.world import World

LEAST = 2.0**-16
"""Labels that a batch of mixtures is taken to have where it has none."""


class Distillation(nn.Module):
    """Everything that learns, and the loss of a step (design: L = gamma CE + sum of objectives).

    The loss is the sum of the losses of the student and of its peers, where there are any: no
    gradient goes from one to the other, nor to the teacher.

    The mean over workers of the gradients is the gradient of the global loss: cross-entropies are
    divided by the labelled rows of *all* workers and multiplied by the number of workers;
    objectives follow the same convention.
    """

    neighbours: Tensor | None
    joined_starts: Tensor | None

    def __init__(
        self,
        student: Student,
        teacher_head: TeacherHead,
        objective: WeightedSum,
        *,
        ce_weight: float,
        label_smoothing: float = 0.0,
        precision: torch.dtype,
        world: World,
        memory: GraphMemory | None = None,
        repeats: bool = False,
        pairs: Mapping[str, FeaturesConfig] = MappingProxyType({}),
        standardizers: Mapping[str, Standardizer] = MappingProxyType({}),
        mixes_teacher: bool = True,
        turns: int = 1,
        neighbours: Tensor | None = None,
        joined: Joined | None = None,
        live: Live | None = None,
    ) -> None:
        """memory: of the rows that the objectives' graphs have beside those of a batch. repeats:
        whether a batch may have a row twice. pairs: of features that objectives compare with the
        store's. standardizers: of the teacher's outputs in them, by name. mixes_teacher: whether
        its outputs are of a mixture where the images are. turns: entries of a batch from one plain
        view to the next, see `Pair`. neighbours: int [N, k] of the data set's rows, -1 = none,
        or joined: its edges, where objectives ask for some."""
        super().__init__()
        self.student = student
        self.teacher_head = teacher_head
        self.objective = objective
        self.memory = memory
        self._ce_weight = ce_weight
        self._label_smoothing = label_smoothing
        self._precision = precision
        self.world = world
        self.repeats = repeats
        self.register_buffer("neighbours", neighbours, persistent=False)
        for name in Joined._fields:
            self.register_buffer(f"joined_{name}", getattr(joined, name, None), persistent=False)
        self._live = live = live or Live()
        peers = {name: nn.ModuleDict(peer._asdict()) for name, peer in live.peers.items()}
        # Some names, such as `type`, are those of methods of modules.
        self.peers = nn.ModuleDict({f"peer_{name}": peer for name, peer in peers.items()})
        self._pairs = {name: (p.student, p.teacher or name) for name, p in pairs.items()}
        self._tap([tap for tap, _ in self._pairs.values()])
        self.standardizers = nn.ModuleDict({f"output_{n}": s for n, s in standardizers.items()})
        _, grid = self._pairs.get(GRID, ("", GRID))
        renamed(self, "grid_standardizer.", f"standardizers.output_{grid}.")
        self._mixes_teacher = mixes_teacher
        self._turns = turns

    def _tap(self, stored: Sequence[str]) -> None:
        learning = self.learning
        features = any("teacher_features" in one.objective.live_needs for one in learning.values())
        names = list(dict.fromkeys([*stored, *self._live.taps]))
        for one in learning.values():
            one.student.tap(names, features=features)
        if self.average is not None:
            self.average.tap(names, features=features)

    @property
    def learning(self) -> dict[str, Learning]:
        """The student, called `student`, and its peers by their names."""
        return {OWN: Learning(self.student, self.objective), **self._live.peers}

    @property
    def students(self) -> list[Student]:
        """The student and its peers."""
        return [one.student for one in self.learning.values()]

    @property
    def average(self) -> Student | None:
        """The student with the moving average of its weights, where that teaches."""
        return self._live.average

    @property
    def replicated(self) -> list[str]:
        """Names of the buffers that are equal on all workers without being sent."""
        memory = () if self.memory is None else (n for n, _ in self.memory.named_buffers())
        # Sorted: sets have another order in every process, and these are sent in this one.
        own = [f"objective.{name}" for name in sorted(self.objective.replicated)]
        peers = [
            f"peers.peer_{name}.objective.{buffer}"
            for name, peer in self._live.peers.items()
            for buffer in sorted(peer.objective.replicated)
        ]
        graph = ("neighbours", *(f"joined_{name}" for name in Joined._fields))
        found = [name for name in graph if getattr(self, name) is not None]
        return [*own, *peers, *(f"memory.{name}" for name in memory), *found, *self.standards]

    @property
    def standards(self) -> list[str]:
        """Names of the buffers that standardise, which no step changes."""
        parts = ("teacher_head.standardizer.", "standardizers.")
        return [name for name, _ in self.named_buffers() if name.startswith(parts)]

    @property
    def steady(self) -> bool:
        """Whether its next steps launch the same operations on tensors of the same shapes."""
        full = self.memory is None or self.memory.full
        sums = (one.objective for one in self.learning.values())
        return full and all(o.steady for total in sums for o in total.objectives.values())

    def forward(self, batch: Batch) -> Losses:
        """The losses of this worker's part of a batch."""
        return self.losses(self.outputs(batch), batch)

    def outputs(self, batch: Batch) -> Forward:
        """What students and teacher's head make of some rows; no row's depends on another's, but
        through batch normalisation."""
        with autocast(batch.images.device, self._precision):
            students = {
                name: Seen(*one.student(batch.images, tapped=True))
                for name, one in self.learning.items()
            }
            teacher = self.teacher_head(batch.features.float())
            average = None
            if self.average is not None:
                with torch.no_grad():
                    average = Seen(*self.average(batch.images, tapped=True))
        return Forward(students, teacher[0], teacher[1], average)

    def losses(self, outputs: Forward, batch: Batch) -> Losses:
        """The losses of this worker's part of a batch from the outputs of all its rows."""
        share = self._share_of_a_label(batch)
        head_ce = self._head_cross_entropy(outputs.teacher_logits, batch, share)
        total = head_ce if head_ce.requires_grad else torch.zeros_like(head_ce)
        parts: dict[str, Tensor] = {}
        edges = self._edges(batch)
        live = self._live_pairs(outputs, batch, edges)
        teacher = self._stored_teacher(outputs, batch)
        for name, one in self.learning.items():
            seen, prefix = outputs.students[name], "" if name == OWN else f"peers.{name}."
            balance = one.objective.balance
            logits = seen.logits if balance is None else balance.tap_logits(seen.logits)
            ce = batch_cross_entropy(logits, batch, self._label_smoothing) * share
            pair = self._stored_pair(seen, teacher, batch, edges)
            graph = None if self.memory is None else self.memory(pair.plain(), self.world)
            value, terms = one.objective(pair, graph, live[name])
            loss = self._ce_weight * ce + value
            total = total + loss
            found = {
                "loss": loss,
                "ce": ce,
                **({"head_ce": head_ce} if name == OWN else {}),
                **terms,
            }
            parts |= {prefix + key: part.detach() for key, part in found.items()}
        labelled = batch.labels >= 0
        correct = (outputs.students[OWN].logits.argmax(dim=1) == batch.labels).sum()
        return Losses(total, parts, correct, labelled.sum())

    def _head_cross_entropy(self, logits: Tensor, batch: Batch, share: Tensor) -> Tensor:
        """Of the teacher's head, which learns from labels alone: no gradient of the objectives
        reaches it."""
        if batch.share is not None and not self._mixes_teacher:
            batch = replace(batch, others=None, share=None)
            share = self._share_of_a_label(batch)
        return batch_cross_entropy(logits, batch) * share

    def _edges(self, batch: Batch) -> Edges | None:
        """Of the rows of all workers."""
        if self.neighbours is None and self.joined_starts is None:
            return None
        [rows] = global_rows([batch.rows], self.world.group)
        if self.neighbours is not None:
            return edges_among(rows, self.neighbours)
        return edges_joined(rows, Joined(*(getattr(self, f"joined_{n}") for n in Joined._fields)))

    def _stored_teacher(self, outputs: Forward, batch: Batch) -> Seen:
        """The store's, as every student sees it; in `taps`, what else of it is compared."""
        wanted = "teacher_features" in self.objective.needs
        features = self.teacher_head.standardized(batch.features) if wanted else None
        stored = {name: self._output(name, values) for name, values in batch.outputs.items()}
        return Seen(outputs.teacher_node, outputs.teacher_logits, features, stored)

    def _stored_pair(
        self, seen: Seen, teacher: Seen, batch: Batch, edges: Edges | None = None
    ) -> Pair:
        """A student and the store's teacher."""
        compared = {
            name: Sides(seen.taps[tap], teacher.taps[output])
            for name, (tap, output) in self._pairs.items()
        }
        return self._pair(seen, teacher, compared, batch, edges)

    def _live_pairs(
        self, outputs: Forward, batch: Batch, edges: Edges | None
    ) -> dict[str, dict[str, list[Pair]]]:
        """Name of a student -> objective -> the student and each of its live teachers."""
        nodes = {
            name: one.objective.projections(outputs.students[name].node)
            for name, one in self.learning.items()
        }
        found: dict[str, dict[str, list[Pair]]] = {name: {} for name in nodes}
        for name, own in nodes.items():
            for objective, node in own.items():
                seen = outputs.students[name]._replace(node=node)
                found[name][objective] = [
                    self._live_pair(seen, other, batch, edges)
                    for other in self._live_teachers(name, objective, outputs, nodes)
                ]
        return found

    def _live_teachers(
        self,
        name: str,
        objective: str,
        outputs: Forward,
        nodes: Mapping[str, Mapping[str, Tensor]],
    ) -> Iterator[Seen]:
        own = self.learning[name].objective
        if own.sides[objective] == AVERAGE:
            average = cast(Seen, outputs.average)
            with torch.no_grad():
                projected = cast(Objective, own.objectives[objective]).projected(average.node)
            yield average._replace(node=projected)
            return
        for other, seen in outputs.students.items():
            if other != name:
                yield seen._replace(node=nodes[other][objective])

    def _live_pair(self, seen: Seen, other: Seen, batch: Batch, edges: Edges | None) -> Pair:
        """A student and another one, or its average, of which the loss is no function."""
        features = None if other.features is None else other.features.detach()
        compared = {
            name: Sides(seen.taps[tap], other.taps[theirs].detach())
            for name, (tap, theirs) in self._live.pairs.items()
        }
        return self._pair(seen, other._replace(features=features), compared, batch, edges)

    def _pair(
        self,
        seen: Seen,
        teacher: Seen,
        compared: Mapping[str, Sides],
        batch: Batch,
        edges: Edges | None,
    ) -> Pair:
        return Pair(
            student=seen.node,
            teacher=teacher.node.detach(),
            student_logits=seen.logits,
            teacher_logits=teacher.logits.detach(),
            labels=batch.labels,
            rows=batch.rows,
            features=compared,
            teacher_features=teacher.features,
            group=self.world.group,
            repeats=self.repeats,
            views=batch.views,
            edges=edges,
            turns=self._turns,
        )

    def _share_of_a_label(self, batch: Batch) -> Tensor:
        """What a label of this worker counts in its part of the global mean, a scalar."""
        least = 1 if batch.share is None else LEAST
        return self.world.size / self.world.total(labels_counted(batch)).clamp(min=least)

    def observe(self, scale: Tensor) -> None:
        """Let automatic weights, where there are any, take in the gradients of a backward pass.

        scale: of the loss.
        """
        for student, objective in self.learning.values():
            if objective.balance is not None:
                # A worker's gradient is that of the global loss times the number of workers.
                scaled, total = scale * self.world.size, self.world.total
                objective.balance.observe(student.head.to_features, scaled, total)

    def _output(self, name: str, values: Tensor) -> Tensor:
        """An output of the teacher, standardised where it is."""
        name = f"output_{name}"
        known = name in self.standardizers
        return cast(Tensor, self.standardizers[name](values)) if known else values.float()
