"""A student's embeddings and predictions of many images, collected batch by batch."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from egapipe.stages.distill import TrainedStudent
from egapipe.stages.evaluate.images import Images

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Embeddings:
    """Of n images. rows: int64 [n] of the data set. labels: int64 [n], -1 = none. nodes: float32
    [n, D]. features: float32 [n, F]. confidence: float32 [n], the largest softmax probability.
    top1, top5: bool [n], whether the label is the first, or among the first five."""

    images: Images
    rows: Ints
    labels: Ints
    nodes: Floats
    features: Floats
    confidence: Floats
    top1: Bools
    top5: Bools

    def teacher(self) -> Floats:
        """The teacher's embeddings of the same images: float32 [n, T].

        Raises UnavailableError if they are in no store.
        """
        return self.images.teacher(self.rows)

    def labelled(self) -> Self:
        """Those with a label."""
        known = self.labels >= 0
        return self if known.all() else self._take(known)

    def with_teacher(self) -> Self:
        """Those that did not fail when they were extracted."""
        known = self.images.with_teacher(self.rows)
        return self if known.all() else self._take(known)

    def first(self, n: int) -> Self:
        """The first n, without a copy."""
        return self._take(slice(n))

    def _take(self, which: slice | Bools) -> Self:
        arrays = (field.name for field in fields(self) if field.name != "images")
        return replace(self, **{name: getattr(self, name)[which] for name in arrays})


def collect(student: TrainedStudent, images: Images, step: Callable[[int], None]) -> Embeddings:
    """Embed every image that can be read. `step` is told how many of them are done.

    Memory: the result and a batch; logits are not kept.
    """
    spec = student.spec
    room = _room(images, spec.dim or spec.features, spec.features)
    done = 0
    for out in student.outputs(images.dataset, images.rows):
        part = slice(done, done + len(out.rows))
        room.rows[part] = out.rows
        room.labels[part] = images.dataset.labels[out.rows]
        room.nodes[part] = out.nodes.cpu().numpy()
        room.features[part] = out.features.cpu().numpy()
        room.confidence[part] = out.logits.softmax(dim=1).amax(dim=1).cpu().numpy()
        room.top1[part], room.top5[part] = hits(out.logits.cpu(), room.labels[part])
        done = part.stop
        step(done)
    return room.first(done)


def hits(logits: Tensor, labels: Ints) -> tuple[Bools, Bools]:
    """bool [B] twice: whether the label is the first, and among the first five, of [B, C]."""
    top = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hit = top == torch.from_numpy(labels)[:, None]
    return hit[:, 0].numpy(), hit.any(dim=1).numpy()


def _room(images: Images, nodes: int, features: int) -> Embeddings:
    """Embeddings of the right size, to be filled."""
    n = len(images.rows)
    return Embeddings(
        images=images,
        rows=np.empty(n, dtype=np.int64),
        labels=np.empty(n, dtype=np.int64),
        nodes=np.empty((n, nodes), dtype=np.float32),
        features=np.empty((n, features), dtype=np.float32),
        confidence=np.empty(n, dtype=np.float32),
        top1=np.empty(n, dtype=np.bool_),
        top5=np.empty(n, dtype=np.bool_),
    )
