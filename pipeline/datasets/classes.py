"""Classes by their names: of the values that a source holds, and of several data sets together."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from egapipe.pipeline.datasets.base import UNLABELLED, Dataset, Images, Labels
from egapipe.pipeline.datasets.decoding.images import Divisor
from egapipe.pipeline.datasets.kinds.arrays.stored import Arrays
from egapipe.pipeline.errors import UsageError

_LISTED = 8


class Classes(NamedTuple):
    """Labels as class numbers, and their names.

    labels: int64 [N], -1 unlabelled. numbers: int64 [N], the source's own numbers, where the
    classes are named by them; -1 unlabelled.
    """

    labels: Labels
    names: list[str] | None
    numbers: Labels | None = None


def of_numbers(numbers: Labels) -> Classes:
    """The numbers that occur are the classes, in numerical order: ids need not count from 0.

    Labels 0..C-1 stay what they are. numbers: int64 [N], -1 unlabelled.
    """
    known = np.unique(numbers[numbers != UNLABELLED])
    if not len(known):
        return Classes(numbers, None)
    labels = np.where(numbers == UNLABELLED, UNLABELLED, np.searchsorted(known, numbers))
    return Classes(labels.astype(np.int64), [str(number) for number in known], numbers)


def of_names(names: Sequence[str | None], known: Sequence[str] | None = None) -> Classes:
    """The names that occur are the classes, sorted as sub-folders would be; None is unlabelled.

    known: all names by number, where the configuration gives them. Raises UsageError for a name
    that is not among them.
    """
    classes = sorted({name for name in names if name is not None}) if known is None else list(known)
    place: dict[str | None, int] = {name: number for number, name in enumerate(classes)}
    place[None] = UNLABELLED
    missing = next((name for name in names if name not in place), None)
    if missing is not None:
        raise UsageError(f"class {missing!r} is not among class_names ({listed(classes)})")
    labels = np.array([place[name] for name in names], dtype=np.int64)
    return Classes(labels, classes or None)


def union(parts: Sequence[Dataset]) -> Classes:
    """Labels of all parts in one numbering.

    Classes of one name are one class, numbered as they first come; where every part has numbers for
    names, in numerical order. Raises UsageError where that would be a guess: numbers beside names,
    or a part that has one name twice.
    """
    labelled = [part for part in parts if part.classes]
    for part in labelled:
        _check_comparable(part, labelled[0])
        _check_unique(part)
    if labelled and all(part.numbered for part in labelled):
        return of_numbers(np.concatenate([part.label_numbers for part in parts]))
    place: dict[str, int] = {}
    for part in labelled:
        for name in part.classes or []:
            place.setdefault(name, len(place))
    labels = np.concatenate([_renumbered(part, place) for part in parts])
    return Classes(labels, list(place) or None)


def aligned(dataset: Dataset, other: Dataset) -> Dataset:
    """A data set with the class numbers of another, the images that a student learns from.

    A class that has no image needs no counterpart. Raises UsageError, both lists of classes named,
    for a class with images that the other lacks, numbers beside names, or a name that comes twice.
    """
    if not other.classes or dataset.classes == other.classes:
        return dataset
    _check_comparable(dataset, other)
    _check_unique(other)
    return by_name(dataset, other.classes, other.name)


def by_name(dataset: Dataset, wanted: list[str], owner: str) -> Dataset:
    """A data set with the classes `wanted`, those of `owner`, by number. Raises as `aligned`."""
    names = dataset.classes
    if not names or names == wanted:
        return dataset
    _check_unique(dataset)
    place = {name: number for number, name in enumerate(wanted)}
    present = np.unique(dataset.labels[dataset.labels != UNLABELLED])
    missing = [names[label] for label in present if names[label] not in place]
    if missing:
        raise UsageError(
            f"{dataset.name} has images of {len(missing)} classes that {owner} does not have "
            f"({listed(missing)}): its classes are {listed(names)}; those of {owner} are "
            f"{listed(wanted)}: give both the same names"
        )
    return Relabelled(dataset, _renumbered(dataset, place), wanted)


class Relabelled:
    """A data set whose classes are numbered as another's; its identity stays its own."""

    def __init__(
        self, dataset: Dataset, labels: Labels, classes: list[str], *, by_number: bool = False
    ) -> None:
        self._dataset, self._by_number = dataset, by_number
        self.labels = labels
        self.classes: list[str] | None = classes
        self.name = dataset.name
        self.keys = dataset.keys
        self.label_numbers = dataset.label_numbers
        self.numbered = dataset.numbered
        self.chosen, self.source_rows = dataset.chosen, dataset.source_rows
        self.notes = dataset.notes

    def __len__(self) -> int:
        return len(self._dataset)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        """Names travel, not labels."""
        make = by_number if self._by_number else _relabelled
        return make, (self._dataset, len(self.classes or ()) if self._by_number else self.classes)

    def encoded(self, row: int) -> bytes:
        """See `Dataset`."""
        return self._dataset.encoded(row)

    def image(
        self, row: int, divisor: Divisor | None = None, data: bytes | None = None
    ) -> Image.Image:
        """See `Dataset`."""
        return self._dataset.image(row, divisor, data)

    @property
    def arrays(self) -> Arrays | None:
        """See `Images`."""
        return self._dataset.arrays

    def array(self, row: int) -> npt.NDArray[Any]:
        """See `Images`."""
        return self._dataset.array(row)

    def for_workers(self, keys: Sequence[str]) -> Images:
        """See `Dataset`: images have no labels."""
        return self._dataset.for_workers(keys)

    def extents(self, rows: Sequence[int]) -> Any:
        """See `Images`."""
        return self._dataset.extents(rows)

    def learn(self, extents: Any) -> None:
        """See `Images`."""
        self._dataset.learn(extents)

    def fingerprint(self) -> str:
        """Of the data set by itself, whatever it is compared with."""
        return self._dataset.fingerprint()

    def digests(self, rows: int) -> list[bytes]:
        """See `Dataset`."""
        return self._dataset.digests(rows)


def by_number(dataset: Dataset, classes: int) -> Dataset:
    """A data set with its source's own numbers for classes, 0 to `classes` - 1.

    So a student numbers them that was trained before classes were named by the values that occur.
    """
    if not dataset.numbered or len(dataset.classes or ()) == classes:
        return dataset
    names = [str(number) for number in range(classes)]
    return Relabelled(dataset, dataset.label_numbers, names, by_number=True)


def listed(names: Iterable[str]) -> str:
    """The first of some names, and how many follow."""
    names = list(names)
    more = f", ... ({len(names)} in all)" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _relabelled(dataset: Dataset, classes: list[str]) -> Relabelled:
    place = {name: number for number, name in enumerate(classes)}
    return Relabelled(dataset, _renumbered(dataset, place), classes)


def _renumbered(dataset: Dataset, place: dict[str, int]) -> Labels:
    # The last entry is what -1 finds.
    table = [*(place.get(name, UNLABELLED) for name in dataset.classes or ()), UNLABELLED]
    labels: npt.NDArray[np.int64] = np.array(table, dtype=np.int64)[dataset.labels]
    return labels


def _check_comparable(dataset: Dataset, other: Dataset) -> None:
    """Numbers are matched with names only where the names are such numbers."""
    if dataset.numbered == other.numbered:
        return
    numbers, named = (dataset, other) if dataset.numbered else (other, dataset)
    if all(name.isascii() and name.isdecimal() for name in named.classes or ()):
        return
    raise UsageError(
        f"labels of {numbers.name} are numbers without class names ("
        f"{listed(numbers.classes or ())}), those of {named.name} have names ("
        f"{listed(named.classes or ())}): they cannot be matched; give `class_names` to the first, "
        "or `label_column: none`"
    )


def _check_unique(dataset: Dataset) -> None:
    names = dataset.classes or []
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"data set {dataset.name} has the class {twice!r} twice: rename one")
