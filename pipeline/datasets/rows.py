"""What every kind of data set shares: the limit, bounds, decoding, the fingerprint, pickling."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy.typing as npt
from PIL import Image

from egapipe.pipeline.config.data import Source
from egapipe.pipeline.datasets.base import UNLABELLED, Images, Labels
from egapipe.pipeline.datasets.choice import choose, notes
from egapipe.pipeline.datasets.decoding.images import Divisor, decode
from egapipe.pipeline.datasets.decoding.passing import passed_on
from egapipe.pipeline.datasets.decoding.reading import attempt, naming
from egapipe.pipeline.datasets.fingerprint import (
    DIGESTS_METHOD,
    METHOD,
    decode_digests,
    encode_digests,
    fingerprint_of,
    image_digests,
    listing_digest,
)
from egapipe.pipeline.datasets.kinds.arrays.stored import Arrays
from egapipe.pipeline.disk.caches import DIGESTS
from egapipe.pipeline.disk.digests import cached_digest
from egapipe.pipeline.disk.paths import moved_cache, use_cache
from egapipe.pipeline.disk.remembered import remembered
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.keys import taken
from egapipe.pipeline.results.durable import durable


class Rows(NamedTuple):
    """What is known of a data set before any image is read. Lists and labels are N long.

    numbers: labels as the source has them, where classes are named by numbers; see `Classes`.
    notes: see `Dataset`.
    """

    name: str
    keys: Sequence[str]
    labels: Labels
    classes: list[str] | None
    numbers: Labels | None = None
    notes: Sequence[str] = ()


def reopened(opening: Callable[..., "RowImages"], *arguments: object) -> tuple[Any, ...]:
    """How a data set is pickled: it is opened anew, and what was found in the node's cache before
    is looked for in the same folder there."""
    return _reopen, (moved_cache(), opening, *arguments)


def _reopen(
    cache: str | None, opening: Callable[..., "RowImages"], *arguments: object
) -> "RowImages":
    use_cache(cache)
    return opening(*arguments)


class RowImages(ABC):
    """`Images` of listed rows; a kind adds how the bytes of one row are read.

    chosen: int64 [N], the row of the listing for each row; None for all.
    """

    arrays: Arrays | None = None

    def __init__(self, name: str, keys: Sequence[str], chosen: Labels | None = None) -> None:
        self.name = name
        self.keys = keys
        self._chosen = chosen

    def __len__(self) -> int:
        return len(self.keys)

    def for_workers(self, keys: Sequence[str]) -> Images:
        """See `Dataset`; as it is, unless a kind has a form with less in it."""
        del keys
        return self

    def extents(self, rows: Sequence[int]) -> Any:
        """See `Images`; none, unless a kind needs them."""
        del rows

    def learn(self, extents: Any) -> None:
        """See `Images`."""
        del extents

    @abstractmethod
    def _read(self, row: int) -> bytes:
        """The stored bytes of a row of the listing, one of `chosen`.

        Raises ImageError; what the machine raises may come as it is, and is tried again.
        """

    def decoded(self, row: int, data: bytes, divisor: Divisor | None = None) -> Image.Image:
        """The RGB image in the stored bytes of a row of the listing. Raises ImageError."""
        return decode(data, divisor)

    def encoded(self, row: int) -> bytes:
        """The stored bytes of a row's image. Raises ImageError, MachineError."""
        number = self._row(row)
        with naming(self.name, number, self.keys[number]):
            return passed_on(attempt(partial(self._read, self._listed(number))))

    def image(
        self, row: int, divisor: Divisor | None = None, data: bytes | None = None
    ) -> Image.Image:
        """The RGB image of a row, see `images.decode`. Raises ImageError, MachineError."""
        if self.arrays is not None:
            raise UsageError(f"data set {self.name} holds arrays, and this is for images")
        data, number = self.encoded(row) if data is None else data, self._row(row)
        with naming(self.name, number, self.keys[number]):
            return self.decoded(self._listed(number), data, divisor)

    def array(self, row: int) -> npt.NDArray[Any]:
        """See `Images`."""
        raise UsageError(f"data set {self.name} holds images, and this is for arrays")

    def _listed(self, number: int) -> int:
        """The row of the listing."""
        return number if self._chosen is None else int(self._chosen[number])

    def _row(self, row: int) -> int:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of data set {self.name}, which has {len(self)}")
        return int(row)


class RowsDataset(RowImages):
    """A `Dataset` of listed rows.

    source: the configuration, with every path made absolute, so that it means the same in a process
    with another working directory. chosen: int64 [N], the row of the listing for each row.
    """

    def __init__(self, source: Source, rows: Rows) -> None:
        if not rows.keys:
            raise UsageError(f"data set {rows.name} has no images: check its path or split")
        _check_named(rows)
        self.source = source
        self.classes = rows.classes
        self.numbered = rows.numbers is not None
        self.notes = [*rows.notes, *notes(rows.name, rows.labels, rows.classes, source.limit)]
        self.source_rows = len(rows.keys)
        self.chosen = choose(rows.keys, rows.labels, source.limit)
        if len(self.chosen) == len(rows.keys):
            RowImages.__init__(self, rows.name, rows.keys)
        else:
            RowImages.__init__(self, rows.name, taken(rows.keys, self.chosen), self.chosen)
        self.labels = rows.labels[self.chosen]
        numbers = rows.labels if rows.numbers is None else rows.numbers
        self.label_numbers = numbers[self.chosen]

    def __reduce__(self) -> tuple[Any, ...]:
        """The configuration travels; the receiving process opens the files itself."""
        return reopened(type(self), self.source)

    @abstractmethod
    def files(self) -> Sequence[str | Path]:
        """The files that hold all rows; none where they are part of an installed package."""

    def fingerprint(self) -> str:
        """SHA-256 of the content, remembered on this node while the files stay the same.

        What was listed (keys, labels, class names) is compared at every start; only what the image
        bytes contribute is taken for unchanged while their files are.
        """
        files = self.files()
        if not files:
            return fingerprint_of(self)
        return cached_digest(files, f"{METHOD}\n{self._listed_as}", partial(fingerprint_of, self))

    def digests(self, rows: int) -> list[bytes]:
        """See `Dataset`; remembered on this node while the files stay the same."""
        files, compute = self.files(), partial(image_digests, self, rows)
        if not files:
            return compute()
        known = f"{DIGESTS_METHOD} {rows}\n{self._listed_as}"
        return remembered(
            DIGESTS, files, known, compute, encode=encode_digests, decode=decode_digests
        )

    @cached_property
    def _listed_as(self) -> str:
        """The configuration and what was listed: all keys are gone through once."""
        # A setting that came later and is not used does not make the node forget.
        source = json.dumps(durable(self.source), separators=(",", ":"), ensure_ascii=False)
        return f"{source}\n{listing_digest(self)}"


def _check_named(rows: Rows) -> None:
    highest = int(rows.labels.max(initial=UNLABELLED))
    if rows.classes is not None and highest >= len(rows.classes):
        raise UsageError(
            f"data set {rows.name} has the label {highest} and names for {len(rows.classes)}"
            " classes only: labels count from 0"
        )
