"""Batches of rows that all lie on the device: images, features of all views and labels.

What a step needs of the host is drawn for a whole epoch at once, by the functions that draw it for
a batch, and sent there in one copy. A step then finds its rows by a counter on the device, so that
nothing crosses the bus and the step can be recorded as a CUDA graph.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from egapipe.pipeline.store import Features
from egapipe.pipeline.views import WHOLE
from egapipe.stages.distill.data.batch import Batch
from egapipe.stages.distill.data.batches import Check
from egapipe.stages.distill.data.inputs.arrays import ResidentArrays
from egapipe.stages.distill.data.inputs.drawing import bytes_beside, drawn_views, joined
from egapipe.stages.distill.data.inputs.images import ResidentImages
from egapipe.stages.distill.data.inputs.mixing import blended
from egapipe.stages.distill.data.loader import Loader
from egapipe.stages.distill.data.rows.entries import Entries

Ints = npt.NDArray[np.int64]
# Columns of an epoch's table: row, label, the teacher's view, its place and draws; those of
# `DrawnViews`; where views are mixed the partner, what is its own, the partner's label, and its
# view's; then those of `Changes`.
_COLUMNS, _MIXED = 5, 3


class ResidentBatches:
    """The batches of `Loader.epoch`, made on the device.

    step: int64 [1] on the device, the step of the epoch whose batch comes next; whoever takes
    one moves it on.
    """

    fixed = True
    resident = True

    def __init__(
        self,
        loader: Loader,
        images: Sequence[ResidentImages | ResidentArrays],
        features: Sequence[Features],
        outputs: Mapping[str, Sequence[Features]] | None = None,
    ) -> None:
        """images, features, outputs of each name: one a source, behind each other, images all of
        one size, arrays of one shape.

        Raises ImageError for a row to train on whose image, or partner's, cannot be read.
        """
        device = loader.world.device
        self._loader = loader
        self._seen = drawn_views(images, loader.student_plan)
        self._changes = loader.changes
        self._mixed = loader.mixed_in is not None
        columns = self._seen.columns
        self._width = _COLUMNS + columns + (_MIXED + columns) * self._mixed
        starts = np.cumsum([0, *(len(part) for part in images)])
        seen = loader.rows
        if loader.mixed_in is not None:
            seen = np.append(seen, loader.mixed_in[seen])
        for part, start in zip(images, starts, strict=False):
            part.check_readable(seen - start)
        # A node may have all views of one source, and fewer of another.
        named = dict(outputs or {})
        every = [part for parts in (features, *named.values()) for part in parts]
        views = min((part.views for part in every), key=len)
        self._features = _on_device(features, views, device)
        self._outputs = {n: _on_device(parts, views, device) for n, parts in named.items()}
        self._views = len(views)
        self._places = np.zeros(features[0].view_count, dtype=np.int64)
        self._places[list(views)] = np.arange(len(views))
        self._table: Tensor | None = None
        self.step = torch.zeros(1, dtype=torch.int64, device=device)
        self._drawing = ThreadPoolExecutor(1, "draw")
        self._next: tuple[int, Future[Tensor]] | None = None
        self._drawn: Tensor | None = None

    def begin(self, epoch: int, first_step: int) -> None:
        """Stand at a step of an epoch, and begin to draw the one after it."""
        expected, coming = self._next or (-1, None)
        # Kept: the copy may still be under way when this returns.
        self._drawn = (
            coming.result() if coming is not None and expected == epoch else self._draw(epoch)
        )
        if self._table is None:
            self._table = torch.zeros_like(self._drawn, device=self.step.device)
        self._table.copy_(self._drawn, non_blocking=True)
        self.step.fill_(first_step)
        if epoch + 1 < self._loader.config.epochs:
            self._next = epoch + 1, self._drawing.submit(self._draw, epoch + 1)

    def advance(self) -> None:
        """Nothing waits for the host."""

    def checked(self, check: Check) -> Check:
        """Nothing keeps a worker from a batch."""
        return check

    def batch(self) -> Batch:
        """The batch of `step`. Raises RuntimeError before the first `begin`."""
        drawn = self._drawn_rows()
        return self._changes.made(self._made(drawn), drawn[:, self._width :])

    def bare(self) -> Batch:
        """The same before colours and mixtures."""
        return self._changes.bare(self._made(self._drawn_rows()))

    def _drawn_rows(self) -> Tensor:
        """int64 [B, columns] of `step`."""
        if self._table is None:
            raise RuntimeError("no epoch was begun yet")
        width = self._width + self._changes.columns
        return self._table.index_select(0, self.step).view(-1, width)

    def _made(self, drawn: Tensor) -> Batch:
        """The rows of a table before they are changed."""
        rows, labels, views, places, draws = drawn[:, :_COLUMNS].unbind(dim=1)
        own = _COLUMNS + self._seen.columns
        entries = rows * self._views + places
        batch = Batch(
            images=self._seen.make(rows, drawn[:, _COLUMNS:own]),
            features=self._features.index_select(0, entries),
            labels=labels,
            rows=rows,
            views=views,
            draws=draws,
            outputs={n: o.index_select(0, entries) for n, o in self._outputs.items()},
        )
        if not self._mixed:
            return batch
        partners, shares, labels = drawn[:, own : own + _MIXED].unbind(dim=1)
        others = self._seen.make(partners, drawn[:, own + _MIXED : self._width])
        images = blended(batch.images, others, shares)
        return replace(batch, images=images, others=labels, share=shares.float() / WHOLE)

    def _draw(self, epoch: int) -> Tensor:
        """int64 [S, B * columns] of an epoch, in pinned memory for a GPU."""
        loader = self._loader
        shares = loader.shares(epoch)
        rows, draws = (np.concatenate(column) for column in zip(*shares, strict=True))
        entries = loader.entries(rows, draws, epoch)
        rows, views, k = entries.rows, entries.views, loader.shown(entries)
        changes = self._changes.draw(rows, entries.own)
        known = (rows, loader.labels_of(entries), views, self._places[views], entries.draws)
        seen = self._seen.draw(loader.hashes[rows], k)
        columns = (*known, *seen, *self._mixtures(entries), *changes.T)
        table = np.stack(columns, axis=1, dtype=np.int64).reshape(len(shares), -1)
        made = torch.from_numpy(table)
        return made.pin_memory() if self.step.device.type == "cuda" else made

    def _mixtures(self, entries: Entries) -> Iterator[npt.NDArray[Any]]:
        """What mixed entries have in them, a column each; none where nothing is mixed."""
        mixture = self._loader.mixture(entries)
        if mixture is not None:
            hashes, k = self._loader.hashes[mixture.partners], self._loader.shown(entries)
            yield from (*mixture, *self._seen.draw(hashes, k))


def resident_bytes(
    images: Sequence[ResidentImages | ResidentArrays], loader: Loader, features: Sequence[Features]
) -> int:
    """Bytes that `ResidentBatches` takes on the device beside the images as they are."""
    beside = sum(bytes_beside(part, loader.student_plan) for part in images)
    return beside + sum(part.tensor().nbytes for part in features)


def _on_device(parts: Sequence[Features], views: Sequence[int], device: torch.device) -> Tensor:
    # On a CPU a single part stays where it is, in the mapped file.
    return joined([part.tensor(views).to(device) for part in parts])
