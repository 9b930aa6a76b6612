"""One row of a data set as the views that a teacher sees."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from egapipe.pipeline.config.data import ArrayType, ViewsConfig
from egapipe.pipeline.datasets import Images
from egapipe.pipeline.datasets.decoding.images import IN_FLIGHT
from egapipe.pipeline.datasets.decoding.passing import Passed, passing
from egapipe.pipeline.datasets.decoding.reading import naming
from egapipe.pipeline.errors import ImageError, UsageError
from egapipe.pipeline.store import Failure
from egapipe.pipeline.views import (
    Boxes,
    Hashes,
    View,
    blended,
    key_hashes,
    own_shares,
    partners,
    view_boxes,
)
from egapipe.stages.extract.decoding.crew import Decoded
from egapipe.stages.extract.decoding.reduced import Reduced, divisor_of, scaled
from egapipe.stages.extract.teachers.array_input import ArrayInput
from egapipe.stages.extract.teachers.preprocessing import Pixels, Preparation
from egapipe.stages.extract.teachers.undecoded import Undecoded


@dataclass(frozen=True)
class Reader:
    """One row of a data set as the views that a teacher sees."""

    dataset: Images
    preprocessing: Preparation
    plan: ViewsConfig

    def __post_init__(self) -> None:
        require_samples(self.dataset, self.preprocessing, self.plan)

    @property
    def view_count(self) -> int:
        """V: the clean view and the augmented ones."""
        return self.plan.count + 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all views of a row: V, then that of the preprocessing."""
        return (self.view_count, *self.preprocessing.shape)

    def key(self, row: int) -> str:
        """The stable id of a row."""
        return self.dataset.keys[row]

    def extents(self, rows: Sequence[int]) -> Any:
        """See `Images`."""
        return self.dataset.extents(with_partners(self.plan, self.dataset, rows))

    def learn(self, extents: Any) -> None:
        """See `Images`."""
        self.dataset.learn(extents)

    def views(self, row: int) -> list[Pixels]:
        """All views of a row, uint8 of the preprocessing's shape; the image is decoded once, and
        that of its partner where views are mixed. One whose partner has no image is not mixed.

        Raises ImageError if it is missing or damaged, MachineError if the machine cannot read it.
        """
        if self.plan.mix is None or self.plan.count == 0:
            return self._unmixed(row)
        hashes = self._hashes(row)
        [partner] = partners(self.plan, hashes[:1], np.array([row])).tolist()
        # The partner first: of its bytes nobody wants a digest, and its pixels go before others
        # come.
        others = None if partner == row else self._partner(partner)
        own = self._unmixed(row)
        if others is None:
            return own
        shares = own_shares(self.plan, hashes, np.arange(1, self.view_count)).tolist()
        triples = zip(own[1:], others[1:], shares, strict=True)
        return [own[0], *(blended(one, other, share) for one, other, share in triples)]

    def _partner(self, row: int) -> list[Pixels] | None:
        """All views of a row before they are mixed; None if it has no image."""
        try:
            with naming(self.dataset.name, row, self.dataset.keys[row]), passing():
                return self._unmixed(row)
        except ImageError:
            return None

    def _unmixed(self, row: int) -> list[Pixels]:
        if isinstance(self.preprocessing, ArrayInput):
            variants = self.dataset.array(row)[: self.view_count]
            return [self.preprocessing.bytes_of(one) for one in variants]
        if isinstance(self.preprocessing, Undecoded):
            return self._left(row, self.preprocessing)
        size: tuple[int, int] | None = None

        def divisor(height: int, width: int) -> int:
            nonlocal size
            size = height, width
            return divisor_of(size, self._boxes(row, size), self.preprocessing.least)

        reduced = isinstance(self.preprocessing, Reduced)
        image = self.dataset.image(row, divisor) if reduced else self.dataset.image(row)
        clean = self.preprocessing.clean(image)
        here = image.height, image.width
        whole = size or here
        views = (scaled(view, whole, here) for view in self._views(row, whole))
        return [clean, *(self.preprocessing.view(image, view) for view in views)]

    def _left(self, row: int, preprocessing: Undecoded) -> list[Pixels]:
        """A row whose image is left to the device, or decoded here where it cannot be."""
        data = self.dataset.encoded(row)
        left = preprocessing.left(data)
        if left is not None:
            return [left.clean(), *map(left.view, self._views(row, left.size))]
        image = self.dataset.image(row, data=data)
        views = self._views(row, (image.height, image.width))
        return [preprocessing.clean(image), *(preprocessing.view(image, view) for view in views)]

    def _views(self, row: int, size: tuple[int, int]) -> list[View]:
        """The augmented views of an image of a size (height, width), one by one."""
        boxes = self._boxes(row, size) if self.plan.count else ()
        return [boxes[k] for k in range(len(boxes))]

    def _boxes(self, row: int, size: tuple[int, int]) -> Boxes:
        """The augmented views of an image of a size (height, width)."""
        numbers = np.arange(1, self.view_count)
        return view_boxes(self.plan, self._hashes(row), numbers, np.array([size]))

    def _hashes(self, row: int) -> Hashes:
        """Of the row's key, once an augmented view."""
        return np.repeat(key_hashes([self.dataset.keys[row]]), self.plan.count)

    def read(self, row: int, slots: Sequence[Pixels]) -> Decoded:
        """Fill a slot a view, uint8 of the preprocessing's shape; zeros if there is no image.

        Raises MachineError, which names row and host and is recorded nowhere: it ends the shard.
        """
        began, failures, key = time.perf_counter(), [], self.dataset.keys[row]
        try:
            with IN_FLIGHT.row(), naming(self.dataset.name, row, key), passing() as passed:
                views = self.views(row)
                for slot, pixels in zip(slots, views, strict=True):
                    slot[...] = pixels
        except ImageError as error:
            failures = [Failure(row, key, str(error))]
            for slot in slots:
                slot[...] = 0
        return Decoded(failures, time.perf_counter() - began, self._digest(row, passed))

    def _digest(self, row: int, passed: Passed) -> dict[int, bytes]:
        """Of the bytes that were decoded; a source of its own kind is asked for them."""
        data = passed.data
        if data is None:
            try:
                data = self.dataset.encoded(row)
            except ImageError:
                return {}
        return {row: hashlib.sha256(data).digest()}


def require_samples(dataset: Images, preprocessing: Preparation, plan: ViewsConfig) -> None:
    """Raise UsageError unless a teacher sees what the rows of a data set are, in so many views."""
    seen = preprocessing.kind if isinstance(preprocessing, ArrayInput) else None
    found = None if dataset.arrays is None else dataset.arrays.type
    if found != seen:
        raise UsageError(
            f"data set {dataset.name} holds {_words(found)}, the teacher sees {_words(seen)}: set "
            "teacher.array to what the data set holds"
        )
    if dataset.arrays is not None and plan.count >= dataset.arrays.variants:
        raise UsageError(
            f"data set {dataset.name} has {dataset.arrays.variants} variants a row, the clean one "
            f"among them: views.count is {plan.count}, and must be less"
        )


def _words(kind: ArrayType | None) -> str:
    return "images" if kind is None else f"arrays {kind.dtype} {list(kind.shape)}"


def with_partners(plan: ViewsConfig, dataset: Images, rows: Sequence[int]) -> Sequence[int]:
    """Rows that are read for the views of some: these, and behind them their partners."""
    if plan.mix is None or plan.count == 0:
        return rows
    hashes = key_hashes(dataset.keys[row] for row in rows)
    others = partners(plan, hashes, np.array(rows, dtype=np.int64))
    return [*rows, *sorted({*others.tolist()} - {*rows})]
