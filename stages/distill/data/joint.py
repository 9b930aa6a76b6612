"""Several sources as one: rows numbered through, those of the first source first."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from egapipe.pipeline.config.data import ArrayType, ViewsConfig
from egapipe.stages.distill.data.inputs.images import Frame, Images

Ints = npt.NDArray[np.int64]


class Embeddings(Protocol):
    """What the teacher made of N rows, as `Features` has it: embeddings, or another output.

    dim: numbers of one row, D of embeddings. valid: bool [N], False for failed rows. row_bytes: of
    memory that a row takes when it is read.
    """

    dim: int
    valid: npt.NDArray[np.bool_]
    row_bytes: int

    def take(self, rows: Ints, view: int | Ints) -> Tensor:
        """[B, D], or [B, *shape] of another output, in the stored type: some rows, int64 [B], each
        in the view that is asked for."""
        ...

    def read_ahead(self, rows: Ints, view: int | Ints) -> None:
        """Begin to read what `take` will be asked for, in the order in which it lies."""
        ...


@dataclass(frozen=True)
class Offsets:
    """Where each part's rows begin. starts: int64 [parts + 1], the last one is the end of all."""

    starts: Ints

    @classmethod
    def of(cls, lengths: Sequence[int]) -> "Offsets":
        """Of parts with so many rows."""
        return cls(np.array([0, *accumulate(lengths)]))

    def parts(self, rows: Ints) -> Iterator[tuple[int, Ints, Ints]]:
        """Of joint rows, int64 [B]: part, places among the B, and their rows within the part."""
        part = np.searchsorted(self.starts, rows, side="right") - 1
        for number in np.unique(part):
            places = np.flatnonzero(part == number)
            yield int(number), places, rows[places] - self.starts[number]

    def gather(self, rows: Ints, of_part: Callable[[int, Ints, Ints], Tensor]) -> Tensor:
        """The results of `of_part(part, places, its rows)`, [b, ...] each, in the order of rows."""
        found = [(p, places, of_part(p, places, inner)) for p, places, inner in self.parts(rows)]
        if len(found) == 1:
            return found[0][2]
        joined = torch.cat([values for _, _, values in found])
        order = np.argsort(np.concatenate([places for _, places, _ in found]))
        return joined[torch.from_numpy(order).to(joined.device)]


class JointImages:
    """Images of several sources; each part is resized to the student's input by itself."""

    def __init__(self, parts: Sequence[Images], lengths: Sequence[int]) -> None:
        """lengths: rows of each part. All parts have one size."""
        self.parts = parts
        self._offsets = Offsets.of(lengths)
        self.threads = max(part.threads for part in parts)
        self.frame: Frame | ArrayType = parts[0].frame

    def clean(self, rows: Ints) -> Tensor:
        """The clean view of each row: uint8 [B, 3, H, W] on the device. Raises ImageError."""
        return self._offsets.gather(rows, lambda part, places, inner: self.parts[part].clean(inner))

    def batch(self, rows: Ints, plan: ViewsConfig, k: int | Ints) -> Tensor:
        """View `k` of each row: uint8 [B, 3, H, W] on the device. Raises ImageError."""
        ks = np.broadcast_to(np.asarray(k, dtype=np.int64), rows.shape)
        return self._offsets.gather(
            rows, lambda part, places, inner: self.parts[part].batch(inner, plan, ks[places])
        )


class JointEmbeddings:
    """One output of several stores, all of one teacher."""

    def __init__(self, parts: Sequence[Embeddings]) -> None:
        self._parts = parts
        self._offsets = Offsets.of([len(part.valid) for part in parts])
        self.dim, self.row_bytes = parts[0].dim, parts[0].row_bytes
        self.valid = np.concatenate([part.valid for part in parts])

    def take(self, rows: Ints, view: int | Ints) -> Tensor:
        """See `Embeddings`. Raises IndexError for a row or view that is out of range."""
        outside = rows[(rows < 0) | (rows >= len(self.valid))]
        if len(outside):
            raise IndexError(f"row {outside[0]} is not in 0..{len(self.valid) - 1}")
        views = np.broadcast_to(np.asarray(view, dtype=np.int64), rows.shape)
        return self._offsets.gather(
            rows, lambda part, places, inner: self._parts[part].take(inner, views[places])
        )

    def read_ahead(self, rows: Ints, view: int | Ints) -> None:
        """See `Embeddings`."""
        views = np.broadcast_to(np.asarray(view, dtype=np.int64), rows.shape)
        for part, places, inner in self._offsets.parts(rows):
            self._parts[part].read_ahead(inner, views[places])


def joint_images(parts: Sequence[Images], lengths: Sequence[int]) -> Images:
    """The parts as one; a single part as it is."""
    return parts[0] if len(parts) == 1 else JointImages(parts, lengths)


def joint_embeddings(parts: Sequence[Embeddings]) -> Embeddings:
    """The parts as one; a single part as it is."""
    return parts[0] if len(parts) == 1 else JointEmbeddings(parts)
