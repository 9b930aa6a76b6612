"""Accuracy of a student on labelled images."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from egapipe.stages.distill.data.inputs.images import Images, readable
from egapipe.stages.distill.data.loader import run_ahead
from egapipe.stages.distill.workers.world import World

Ints = npt.NDArray[np.int64]
# Images of a forward pass. A GPU is filled by more.
BATCH = {"cpu": 512, "cuda": 4096}


@dataclass(frozen=True)
class Accuracy:
    """Top-1 and top-5 accuracy in %, the number of images, and the mean cross-entropy of a student,
    NaN where it was not asked for."""

    top1: float
    top5: float
    images: int
    loss: float = math.nan


@dataclass(frozen=True)
class Evaluation:
    """Labelled images. labels: int64 [N] of the data set. rows: which of them count."""

    images: Images
    labels: Ints
    rows: Ints

    def accuracy(self, logits: Callable[[Tensor], Tensor], world: World) -> Accuracy:
        """Accuracy of `logits` (uint8 [B, 3, H, W] to [B, C]); the workers share the images.

        Images that cannot be read do not count.
        """
        mine = world.share(self.rows)
        length = BATCH[world.device.type]
        chunks = (mine[i : i + length] for i in range(0, len(mine), length))
        jobs = (lambda c=c: readable(self.images, c) for c in chunks)
        # Hits among the first one and five, images, and the sum of their cross-entropies.
        counts = torch.zeros(4, dtype=torch.float64, device=world.device)

        @torch.no_grad()
        def count() -> None:
            for rows, images in run_ahead(jobs, self.images.threads, world.device):
                labels = torch.from_numpy(self.labels[rows]).to(world.device)
                if len(rows):
                    found = logits(images)
                    counts[:2] += count_hits(found, labels)
                    counts[2] += len(rows)
                    counts[3] += cross_entropy(found, labels, reduction="sum")

        world.agree(count)
        counts = world.total(counts)
        images = int(counts[2])
        return replace(as_accuracy(counts[:2], images), loss=float(counts[3]) / max(1, images))


def count_hits(logits: Tensor, labels: Tensor) -> Tensor:
    """int64 [2]: rows whose label is the first, and among the first five, of [B, C] logits."""
    top = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hit = top == labels[:, None]
    return torch.stack([hit[:, 0].sum(), hit.sum()])


def as_accuracy(hits: Tensor, images: int) -> Accuracy:
    """Counts to percentages."""
    top1, top5 = (100.0 * int(h) / max(1, images) for h in hits)
    return Accuracy(top1, top5, images)
