"""The student with its heads, and one step's loss."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from egapipe.pipeline.config.data import Normalize
from egapipe.stages.distill.loader import Batch
from egapipe.stages.distill.objectives import Pair, WeightedSum
from egapipe.stages.distill.world import World


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


class Student(nn.Module):
    """A backbone with a head: uint8 images to nodes and logits."""

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, head: Head, normalize: Normalize) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        # Part of the module so that it follows the device; not of the weights.
        mean, std = torch.tensor(normalize.mean), torch.tensor(normalize.std)
        self.register_buffer("mean", mean.view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", std.view(1, 3, 1, 1) * 255, persistent=False)

    def features(self, images: Tensor) -> Tensor:
        """uint8 [B, 3, H, W] to the backbone's features [B, F]."""
        return cast(Tensor, self.backbone((images.float() - self.mean) / self.std))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [B, 3, H, W] to nodes [B, D] and logits [B, C]."""
        return cast(tuple[Tensor, Tensor], self.head(self.features(images)))


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
        teacher_head: Head,
        objective: WeightedSum,
        *,
        ce_weight: float,
        label_smoothing: float = 0.0,
        precision: torch.dtype,
        world: World,
    ) -> None:
        super().__init__()
        self.student = student
        self.teacher_head = teacher_head
        self.objective = objective
        self._ce_weight = ce_weight
        self._label_smoothing = label_smoothing
        self._precision = precision
        self._world = world

    def forward(self, batch: Batch) -> Losses:
        """The losses of this worker's part of a batch."""
        half = self._precision != torch.float32
        with torch.autocast(batch.images.device.type, dtype=self._precision, enabled=half):
            node, logits = self.student(batch.images)
            teacher_node, teacher_logits = self.teacher_head(batch.features.float())
        labelled = batch.labels >= 0
        share = self._world.size / self._world.total(labelled.sum()).clamp(min=1)
        ce = masked_cross_entropy(logits, batch.labels, self._label_smoothing) * share
        # The teacher's head learns from labels alone: no gradient of the objectives reaches it.
        head_ce = masked_cross_entropy(teacher_logits, batch.labels) * share
        pair = Pair(
            student=node,
            teacher=teacher_node.detach(),
            student_logits=logits,
            teacher_logits=teacher_logits.detach(),
            labels=batch.labels,
            rows=batch.rows,
            group=self._world.group,
        )
        value, terms = self.objective(pair)
        total = self._ce_weight * ce + value + (head_ce if head_ce.requires_grad else 0.0)
        correct = (logits.argmax(dim=1) == batch.labels).sum()
        parts = {"loss": self._ce_weight * ce + value, "ce": ce, "head_ce": head_ce, **terms}
        detached = {name: part.detach() for name, part in parts.items()}
        return Losses(total, detached, correct, labelled.sum())


def masked_cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Sum of the cross-entropy over labelled rows; zero, and connected to the graph, without any.

    logits: [B, C]. labels: int64 [B], -1 = unlabelled. smoothing: share of the target that is
    spread evenly over all classes.
    """
    return F.cross_entropy(
        logits.float(), labels, ignore_index=-1, reduction="sum", label_smoothing=smoothing
    )
