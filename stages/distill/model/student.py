"""The student with its heads, and one step's loss."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, NamedTuple, Self, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from egapipe.pipeline.config.data import Normalize
from egapipe.pipeline.config.features import GRID, FeaturesConfig
from egapipe.stages.distill.data.batch import Batch
from egapipe.stages.distill.model.memory import GraphMemory
from egapipe.stages.distill.model.precision import autocast
from egapipe.stages.distill.model.standardizer import Standardizer
from egapipe.stages.distill.objectives import Pair, Sides, WeightedSum
from egapipe.stages.distill.objectives.shared.features import renamed
from egapipe.stages.distill.students.frozen import frozen_parts
from egapipe.stages.distill.students.taps import Taps
from egapipe.stages.distill.workers.world import World

LEAST = 2.0**-16
"""Labels that a batch of mixtures is taken to have where it has none."""


class Head(nn.Module):
    """A linear node-embedding layer and a linear classifier on top of it (arXiv 2211.13264)."""

    def __init__(self, features: int, dim: int | None, classes: int) -> None:
        super().__init__()
        self.node: nn.Module = nn.Identity() if dim is None else nn.Linear(features, dim)
        self.classifier = nn.Linear(dim or features, classes)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """[B, F] features to [B, D] nodes and [B, C] logits."""
        node = self.node(features)
        return node, self.classifier(node)

    def to_features(self, by_node: Tensor | None, by_logits: Tensor | None) -> Tensor:
        """Gradients by nodes [B, D] and logits [B, C] to that by the features, float32 [B, F]."""
        parts = []
        if by_node is not None:
            parts.append(by_node.float())
        if by_logits is not None:
            parts.append(by_logits.float() @ self.classifier.weight)
        total = torch.stack(parts).sum(dim=0)
        return total @ self.node.weight if isinstance(self.node, nn.Linear) else total


class TeacherHead(Head):
    """The same on top of the teacher's stored features, which may be standardised first."""

    def __init__(
        self,
        features: int,
        dim: int | None,
        classes: int,
        standardizer: Standardizer | None = None,
    ) -> None:
        super().__init__(features, dim, classes)
        self.standardizer = standardizer

    def standardized(self, features: Tensor) -> Tensor:
        """float32 [B, F]: stored features as the node layer sees them."""
        return features.float() if self.standardizer is None else self.standardizer(features)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Stored features [B, F] to [B, D] nodes and [B, C] logits."""
        return super().forward(self.standardized(features))


class Student(nn.Module):
    """A backbone with a head: uint8 images to nodes and logits."""

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, head: Head, normalize: Normalize) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self._taps: Taps | None = None
        self.set_memory_format(torch.channels_last)
        # Part of the module so that it follows the device; not of the weights.
        # NumPy scales: on the meta device torch would import its compiler to multiply.
        for name, levels in (("mean", normalize.mean), ("std", normalize.std)):
            scaled = torch.tensor(np.asarray(levels, np.float32) * 255)
            self.register_buffer(name, scaled.view(1, 3, 1, 1), persistent=False)

    def set_memory_format(self, memory_format: torch.memory_format) -> None:
        """Order in memory of images and of the weights of convolutions; the values stay."""
        self.backbone.to(memory_format=memory_format)  # type: ignore[call-overload]
        self._memory_format = memory_format

    def train(self, mode: bool = True) -> Self:
        """As of any module, but that frozen parts of the backbone stay in evaluation mode."""
        super().train(mode)
        for part in frozen_parts(self.backbone):
            part.eval()
        return self

    def features(self, images: Tensor) -> Tensor:
        """uint8 [B, 3, H, W] to the backbone's features [B, F]."""
        return cast(Tensor, self.backbone(self._pixels(images)))

    def tap(self, names: Sequence[str]) -> None:
        """Let `forward` give what these taps do, see `Taps`. Raises UsageError as that does."""
        self._taps = Taps(self.backbone, names) if names else None

    def forward(self, images: Tensor, *, tapped: bool = False) -> tuple[Any, ...]:
        """uint8 [B, 3, H, W] to nodes [B, D] and logits [B, C].

        tapped: what each tap gives by its name, [B, *shape], is the third.
        """
        if not tapped or self._taps is None:
            nodes = self.head(self.features(images))
            return (*nodes, {}) if tapped else tuple(nodes)
        features, found = self._taps.run(self._pixels(images))
        return (*self.head(features), found)

    def _pixels(self, images: Tensor) -> Tensor:
        pixels = (images.float() - self.mean) / self.std
        return pixels.contiguous(memory_format=self._memory_format)


class Forward(NamedTuple):
    """node [B, D] and logits [B, C] of the student, and the same of the teacher's head; taps: what
    else objectives compare of the student, [B, *shape] a tap."""

    node: Tensor
    logits: Tensor
    teacher_node: Tensor
    teacher_logits: Tensor
    taps: Mapping[str, Tensor] = MappingProxyType({})

    def named(self) -> dict[str, Tensor]:
        """All of them by name, those of taps behind `taps.`."""
        own = {n: v for n, v in self._asdict().items() if isinstance(v, Tensor)}
        return {**own, **{f"taps.{name}": value for name, value in self.taps.items()}}

    @classmethod
    def of(cls, named: Mapping[str, Tensor]) -> Self:
        """Of what `named` gives."""
        taps = {n.removeprefix("taps."): v for n, v in named.items() if n.startswith("taps.")}
        own = {n: v for n, v in named.items() if not n.startswith("taps.")}
        return cls(**own, taps=taps)


@dataclass(frozen=True)
class Losses:
    """total: what is differentiated. parts: detached scalars by name. correct, labelled: of the
    student's predictions on this worker's labelled rows."""

    total: Tensor
    parts: Mapping[str, Tensor]
    correct: Tensor
    labelled: Tensor


class Distillation(nn.Module):
    """Everything that learns, and the loss of a step (design: L = gamma CE + sum of objectives).

    The mean over workers of the gradients is the gradient of the global loss: cross-entropies are
    divided by the labelled rows of *all* workers and multiplied by the number of workers;
    objectives follow the same convention.
    """

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
    ) -> None:
        """memory: of the rows that the objectives' graphs have beside those of a batch. repeats:
        whether a batch may have a row twice. pairs: of features that objectives compare.
        standardizers: of the teacher's outputs in them, by name. mixes_teacher: whether its outputs
        are of a mixture where the images are. turns: entries of a batch from one plain view to the
        next, see `Pair`."""
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
        self._pairs = {name: (p.student, p.teacher or name) for name, p in pairs.items()}
        student.tap(list(dict.fromkeys(tap for tap, _ in self._pairs.values())))
        self.standardizers = nn.ModuleDict({f"output_{n}": s for n, s in standardizers.items()})
        _, grid = self._pairs.get(GRID, ("", GRID))
        renamed(self, "grid_standardizer.", f"standardizers.output_{grid}.")
        self._mixes_teacher = mixes_teacher
        self._turns = turns

    @property
    def replicated(self) -> list[str]:
        """Names of the buffers that are equal on all workers without being sent."""
        memory = () if self.memory is None else (n for n, _ in self.memory.named_buffers())
        equal = [f"objective.{name}" for name in self.objective.replicated]
        return [*equal, *(f"memory.{name}" for name in memory), *self.standards]

    @property
    def standards(self) -> list[str]:
        """Names of the buffers that standardise, which no step changes."""
        parts = ("teacher_head.standardizer.", "standardizers.")
        return [name for name, _ in self.named_buffers() if name.startswith(parts)]

    @property
    def steady(self) -> bool:
        """Whether its next steps launch the same operations on tensors of the same shapes."""
        # Which rows a graph has twice is looked at.
        graph = not self.repeats and self.memory is None
        return graph and all(one.steady for one in self.objective.objectives.values())

    def forward(self, batch: Batch) -> Losses:
        """The losses of this worker's part of a batch."""
        return self.losses(self.outputs(batch), batch)

    def outputs(self, batch: Batch) -> Forward:
        """What student and teacher's head make of some rows; no row's depends on another's, but
        through batch normalisation."""
        with autocast(batch.images.device, self._precision):
            node, logits, taps = self.student(batch.images, tapped=True)
            teacher = self.teacher_head(batch.features.float())
        return Forward(node, logits, teacher[0], teacher[1], taps)

    def losses(self, outputs: Forward, batch: Batch) -> Losses:
        """The losses of this worker's part of a batch from the outputs of all its rows."""
        node, logits, teacher_node, teacher_logits, taps = outputs
        labelled = batch.labels >= 0
        share = self._share_of_a_label(batch)
        balance = self.objective.balance
        seen = logits if balance is None else balance.tap_logits(logits)
        ce = batch_cross_entropy(seen, batch, self._label_smoothing) * share
        # The teacher's head learns from labels alone: no gradient of the objectives reaches it.
        seen_by_teacher = batch
        if batch.share is not None and not self._mixes_teacher:
            seen_by_teacher = replace(batch, others=None, share=None)
            share = self._share_of_a_label(seen_by_teacher)
        head_ce = batch_cross_entropy(teacher_logits, seen_by_teacher) * share
        pair = Pair(
            student=node,
            teacher=teacher_node.detach(),
            student_logits=logits,
            teacher_logits=teacher_logits.detach(),
            labels=batch.labels,
            rows=batch.rows,
            features=self._compared(taps, batch),
            teacher_features=self._features(batch),
            group=self.world.group,
            repeats=self.repeats,
            views=batch.views,
            turns=self._turns,
        )
        graph = None if self.memory is None else self.memory(pair.plain(), self.world)
        value, terms = self.objective(pair, graph)
        total = self._ce_weight * ce + value + (head_ce if head_ce.requires_grad else 0.0)
        correct = (logits.argmax(dim=1) == batch.labels).sum()
        parts = {"loss": self._ce_weight * ce + value, "ce": ce, "head_ce": head_ce, **terms}
        detached = {name: part.detach() for name, part in parts.items()}
        return Losses(total, detached, correct, labelled.sum())

    def _share_of_a_label(self, batch: Batch) -> Tensor:
        """What a label of this worker counts in its part of the global mean, a scalar."""
        least = 1 if batch.share is None else LEAST
        return self.world.size / self.world.total(labels_counted(batch)).clamp(min=least)

    def observe(self, scale: Tensor) -> None:
        """Let automatic weights, where there are any, take in the gradients of a backward pass.

        scale: of the loss.
        """
        if self.objective.balance is not None:
            head, world = self.student.head, self.world
            # A worker's gradient is that of the global loss times the number of workers.
            self.objective.balance.observe(head.to_features, scale * world.size, world.total)

    def _features(self, batch: Batch) -> Tensor | None:
        """The teacher's as the objectives see them, where one does."""
        if "teacher_features" not in self.objective.needs:
            return None
        return self.teacher_head.standardized(batch.features)

    def _compared(self, taps: Mapping[str, Tensor], batch: Batch) -> dict[str, Sides]:
        """The pairs of features as the objectives see them."""
        outputs = {name: self._output(name, values) for name, values in batch.outputs.items()}
        pairs = self._pairs.items()
        return {name: Sides(taps[tap], outputs[output]) for name, (tap, output) in pairs}

    def _output(self, name: str, values: Tensor) -> Tensor:
        """An output of the teacher, standardised where it is."""
        name = f"output_{name}"
        known = name in self.standardizers
        return cast(Tensor, self.standardizers[name](values)) if known else values.float()


def labels_counted(batch: Batch) -> Tensor:
    """How many labels the rows of a batch have, a scalar: of a mixture each one that is known by
    its share."""
    own = batch.labels >= 0
    if batch.share is None or batch.others is None:
        return own.sum()
    return (batch.share * own + (1 - batch.share) * (batch.others >= 0)).sum()


def batch_cross_entropy(logits: Tensor, batch: Batch, smoothing: float = 0.0) -> Tensor:
    """Sum of the cross-entropy over the labels of a batch, those of mixtures by their shares; as
    `masked_cross_entropy`."""
    if batch.share is None or batch.others is None:
        return masked_cross_entropy(logits, batch.labels, smoothing)
    own, other = (
        F.cross_entropy(
            logits.float(), labels, ignore_index=-1, reduction="none", label_smoothing=smoothing
        )
        for labels in (batch.labels, batch.others)
    )
    return (batch.share * own + (1 - batch.share) * other).sum()


def masked_cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Sum of the cross-entropy over labelled rows; zero, and connected to the graph, without any.

    logits: [B, C]. labels: int64 [B], -1 = unlabelled. smoothing: share of the target that is
    spread evenly over all classes.
    """
    return F.cross_entropy(
        logits.float(), labels, ignore_index=-1, reduction="sum", label_smoothing=smoothing
    )
