"""Several data sets as one: rows one after the other, labels matched by class names."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path

from PIL import Image

from egapipe.pipeline.config.data import SeveralSource
from egapipe.pipeline.datasets.classes import union
from egapipe.pipeline.datasets.rows import Rows, RowsDataset
from egapipe.pipeline.keys import JoinedKeys


class SeveralDataset(RowsDataset):
    """The rows of each part in turn; keys are `<name of the part>:<its key>`.

    A part whose name was there before is called `<name>#2`: two folders of one name keep their rows
    apart. See `union` for the labels.
    """

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

    def __reduce__(self) -> tuple[type["SeveralDataset"], tuple[object, ...]]:
        """The parts travel as each of them does."""
        return type(self), (self.source, self._parts)

    def files(self) -> Sequence[str | Path]:
        """The files of all parts; none where one part has none, for they then say too little."""
        files = [part.files() for part in self._parts]
        return [file for some in files for file in some] if all(files) else []

    def _read(self, row: int) -> bytes:
        part, inner = self._place(row)
        return part.encoded(inner)

    def decoded(self, row: int, data: bytes) -> Image.Image:
        """See `RowsDataset`."""
        part, inner = self._place(row)
        return part.decoded(inner, data)

    def _place(self, row: int) -> tuple[RowsDataset, int]:
        number = bisect_right(self._ends, row)
        part = self._parts[number]
        return part, row - (self._ends[number] - len(part))


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
