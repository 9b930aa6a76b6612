"""Several data sets as one: rows one after the other, labels matched by class names."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
from PIL import Image

from egapipe.pipeline.config.data import SeveralSource
from egapipe.pipeline.datasets.base import UNLABELLED, Dataset, Labels
from egapipe.pipeline.datasets.rows import Rows, RowsDataset
from egapipe.pipeline.errors import UsageError


class SeveralDataset(RowsDataset):
    """The rows of each part in turn; keys are `<name of the part>:<its key>`.

    A part whose name was there before is called `<name>#2`: two folders of one name keep their rows
    apart. See `align` for the labels.
    """

    def __init__(self, source: SeveralSource, parts: Sequence[RowsDataset]) -> None:
        """`parts` are the opened `source.sources`, in their order. Raises UsageError."""
        source = source.model_copy(update={"sources": [part.source for part in parts]})
        prefixes = unique_prefixes(part.name for part in parts)
        keys = [f"{p}:{key}" for p, part in zip(prefixes, parts, strict=True) for key in part.keys]
        labels, classes = align(parts)
        super().__init__(source, Rows("+".join(prefixes), keys, labels, classes))
        self._parts = parts
        self._ends = list(accumulate(len(part) for part in parts))

    def __reduce__(self) -> tuple[type["SeveralDataset"], tuple[object, ...]]:
        """The parts travel as each of them does."""
        return type(self), (self.source, self._parts)

    def files(self) -> Sequence[Path]:
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


def align(parts: Sequence[Dataset]) -> tuple[Labels, list[str] | None]:
    """Labels (int64 [N], -1 unlabelled) of all parts in one numbering, and its class names.

    Classes of one name are one class, numbered as they first come. Without any names numbers are
    taken as they are. Raises UsageError where that would be a guess: labels without names beside
    labels with names, or a part that has one name twice.
    """
    if not any(part.classes for part in parts):
        return np.concatenate([part.labels for part in parts]), None
    numbers: dict[str, int] = {}
    for part in parts:
        _check_named(part, parts)
        for name in part.classes or []:
            numbers.setdefault(name, len(numbers))
    return np.concatenate([_renumbered(part, numbers) for part in parts]), list(numbers)


def _renumbered(part: Dataset, numbers: dict[str, int]) -> Labels:
    # The last entry is what -1 finds.
    table = [*(numbers[name] for name in part.classes or []), UNLABELLED]
    labels: Labels = np.array(table, dtype=np.int64)[part.labels]
    return labels


def _check_named(part: Dataset, parts: Sequence[Dataset]) -> None:
    if not part.classes and (part.labels != UNLABELLED).any():
        named = next(other.name for other in parts if other.classes)
        raise UsageError(
            f"labels of {part.name} are numbers without class names, those of {named} have names:"
            " they cannot be matched; give `class_names` to the first, or `label_column: none`"
        )
    names = part.classes or []
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"data set {part.name} has the class {twice!r} twice: rename one of them")
