"""Several data sets as one: rows one after the other, labels matched by class names."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from egapipe.pipeline.config.data import SeveralSource
from egapipe.pipeline.datasets.base import Images, Labels
from egapipe.pipeline.datasets.classes import union
from egapipe.pipeline.datasets.decoding.images import Divisor
from egapipe.pipeline.datasets.rows import RowImages, Rows, RowsDataset
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.keys import JoinedKeys, Keys


class _Parted(RowImages):
    """Rows that are those of several parts in turn. ends: rows of the first part, of the first two,
    and so on."""

    _parts: Sequence[Images]
    _ends: Sequence[int]

    def extents(self, rows: Sequence[int]) -> dict[int, Any]:
        """See `Images`; of each part that has some of the rows."""
        inside: dict[int, list[int]] = {}
        for part, inner in map(self._place, map(self._listed, rows)):
            inside.setdefault(part, []).append(inner)
        found = {part: self._parts[part].extents(inner) for part, inner in inside.items()}
        return {part: extents for part, extents in found.items() if extents is not None}

    def array(self, row: int) -> npt.NDArray[Any]:
        """See `Images`."""
        part, inner = self._place(self._listed(self._row(row)))
        return self._parts[part].array(inner)

    def _read(self, row: int) -> bytes:
        part, inner = self._place(row)
        return self._parts[part].encoded(inner)

    def _place(self, row: int) -> tuple[int, int]:
        """The part that a row of the listing is in, and its row there."""
        part = bisect_right(self._ends, row)
        return part, row - (self._ends[part - 1] if part else 0)


class SeveralDataset(_Parted, RowsDataset):
    """The rows of each part in turn; keys are `<name of the part>:<its key>`.

    A part whose name was there before is called `<name>#2`: two folders of one name keep their rows
    apart. See `union` for the labels.
    """

    _parts: Sequence[RowsDataset]

    def __init__(self, source: SeveralSource, parts: Sequence[RowsDataset]) -> None:
        """`parts` are the opened `source.sources`, in their order. Raises UsageError."""
        source = source.model_copy(update={"sources": [part.source for part in parts]})
        prefixes = unique_prefixes(part.name for part in parts)
        named = zip(prefixes, parts, strict=True)
        keys = JoinedKeys([(f"{prefix}:", part.keys) for prefix, part in named])
        labels, classes, numbers = union(parts)
        said = [note for part in parts for note in part.notes]
        super().__init__(source, Rows("+".join(prefixes), keys, labels, classes, numbers, said))
        self._parts = parts
        self._ends = list(accumulate(len(part) for part in parts))
        self.arrays = parts[0].arrays
        for part in parts:
            if part.arrays != self.arrays:
                raise UsageError(
                    f"data sets {parts[0].name} and {part.name} are not of one kind: images go "
                    "with images, arrays with arrays of one shape, type and number of variants"
                )

    def __reduce__(self) -> tuple[type["SeveralDataset"], tuple[object, ...]]:
        """The parts travel as each of them does."""
        return type(self), (self.source, self._parts)

    def for_workers(self, keys: Sequence[str]) -> Images:
        """Of each part what a worker gets of it by itself."""
        bounds = pairwise([0, *self._ends])
        parts = [
            part.for_workers(PartKeys(keys, self._chosen, start, stop))
            for part, (start, stop) in zip(self._parts, bounds, strict=True)
        ]
        return SeveralImages(self.name, keys, self._chosen, parts, self._ends)

    def files(self) -> Sequence[str | Path]:
        """The files of all parts; none where one part has none, for they then say too little."""
        files = [part.files() for part in self._parts]
        return [file for some in files for file in some] if all(files) else []

    def decoded(self, row: int, data: bytes, divisor: Divisor | None = None) -> Image.Image:
        """See `RowsDataset`."""
        part, inner = self._place(row)
        return self._parts[part].decoded(inner, data, divisor)


class SeveralImages(_Parted):
    """The images of several data sets, each without the listing of its rows."""

    def __init__(
        self,
        name: str,
        keys: Sequence[str],
        chosen: Labels | None,
        parts: Sequence[Images],
        ends: Sequence[int],
    ) -> None:
        super().__init__(name, keys, chosen)
        self._parts, self._ends = parts, ends
        self.arrays = parts[0].arrays

    def learn(self, extents: dict[int, Any]) -> None:
        """See `Images`."""
        for part, known in extents.items():
            self._parts[part].learn(known)

    def image(
        self, row: int, divisor: Divisor | None = None, data: bytes | None = None
    ) -> Image.Image:
        """See `Images`."""
        part, inner = self._place(self._listed(self._row(row)))
        return self._parts[part].image(inner, divisor, data)


class PartKeys(Keys):
    """The keys of one part, without their prefix, where only those of all parts are at hand.

    Of a limited data set those of chosen rows alone are there.
    """

    def __init__(self, keys: Sequence[str], chosen: Labels | None, start: int, stop: int) -> None:
        """chosen: see `RowImages`. start, stop: rows of the part in the listing of all."""
        self._keys, self._chosen, self._start, self._stop = keys, chosen, start, stop

    def __len__(self) -> int:
        return self._stop - self._start

    def block(self, start: int, stop: int) -> list[str]:
        """See `Keys`."""
        rows: Sequence[int] = range(self._start + start, self._start + stop)
        if self._chosen is not None:
            rows = np.searchsorted(self._chosen, rows).tolist()
        return [self._keys[row].partition(":")[2] for row in rows]


def unique_prefixes(names: Iterable[str]) -> list[str]:
    """One prefix a name, all different and without a colon: the first colon of a key ends it."""
    prefixes: list[str] = []
    for name in names:
        base = prefix = name.replace(":", "%3A")
        number = 1
        while prefix in prefixes:
            number += 1
            prefix = f"{base}#{number}"
        prefixes.append(prefix)
    return prefixes
