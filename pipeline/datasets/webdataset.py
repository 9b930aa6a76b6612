"""Images in WebDataset tars, read in place."""

import threading
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from egapipe.pipeline.config.data import WebDatasetSource
from egapipe.pipeline.datasets.base import UNLABELLED, Images, Labels
from egapipe.pipeline.datasets.classes import Classes, of_names, of_numbers
from egapipe.pipeline.datasets.patterns import matches
from egapipe.pipeline.datasets.reading import read_slice
from egapipe.pipeline.datasets.rows import RowImages, Rows, RowsDataset, reopened
from egapipe.pipeline.datasets.tarindex import tar_index
from egapipe.pipeline.errors import ImageError, UsageError
from egapipe.pipeline.keys import JoinedKeys, Keys, TextKeys, repeated
from egapipe.pipeline.locations.remote import at_once

# A scan reads a tar once: several keep a disk or a network busy.
_SCANS = 4
# Rows of a shard and of the next lie in a few tars that follow each other.
_KEPT = 8


class TarDataset(RowsDataset):
    """Samples of uncompressed tars, tar after tar; nothing is extracted, nothing unpickled.

    Keys are the members' names up to the first dot, behind `<name of the tar>/` where
    `tar_in_key` asks for it. Labels: the `.cls` member, else a field of the `.json` member, else
    none. A sample without an image, or whose image is a link, is a row that raises ImageError.
    """

    def __init__(self, source: WebDatasetSource) -> None:
        """Raises UsageError: a tar is missing or truncated, a label is no number, keys repeat."""
        self._tars = [file for pattern in source.files for file in _matches(pattern)]
        source = source.model_copy(update={"files": self._tars})
        index_of = partial(tar_index, image=source.image, label_field=source.label_field)
        indexes = at_once(index_of, self._tars, _SCANS)
        index = pa.concat_tables(indexes)
        keys = _keys(self._tars, indexes, source.tar_in_key)
        name = _name(self._tars)
        labels, classes, numbers = _classes(index.column("label"), source, name)
        super().__init__(source, Rows(name, keys, labels, classes, numbers))
        self._starts = np.cumsum([0, *(len(one) for one in indexes)])
        self._offsets, self._sizes = _ints(index, "offset"), _ints(index, "size")
        self._problems = index.column("problem")
        _check_any_image(self.name, index)

    def for_workers(self, keys: Sequence[str]) -> Images:
        """A worker looks into the tars that its rows are in."""
        source = self.source
        assert isinstance(source, WebDatasetSource)  # noqa: S101  (its own)
        return TarImages(self.name, keys, self._chosen, source, self._starts)

    def files(self) -> Sequence[str]:
        """The tars."""
        return self._tars

    def _read(self, row: int) -> bytes:
        problem: str = self._problems[row].as_py()
        if problem:
            raise ImageError(problem)
        tar = self._tars[_tar_of(row, self._starts)]
        return read_slice(tar, int(self._offsets[row]), int(self._sizes[row]))


class TarImages(RowImages):
    """The images of tars, without a list of their samples: that of a tar is looked up, or made,
    when an image of it is read, and a few are kept."""

    def __init__(
        self,
        name: str,
        keys: Sequence[str],
        chosen: Labels | None,
        source: WebDatasetSource,
        starts: npt.NDArray[np.int64],
    ) -> None:
        """source: with the paths of all tars. starts: the first row of each tar, and of none."""
        super().__init__(name, keys, chosen)
        self._arguments = (name, keys, chosen, source, starts)
        self._source, self._starts = source, starts
        self._samples = lru_cache(_KEPT)(self._listed_samples)
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return reopened(type(self), *self._arguments)

    def _read(self, row: int) -> bytes:
        number = _tar_of(row, self._starts)
        with self._lock:
            samples = self._samples(number)
        place = row - int(self._starts[number])
        problem: str = samples["problem"][place].as_py()
        if problem:
            raise ImageError(problem)
        offset, size = (samples[column][place].as_py() for column in ("offset", "size"))
        return read_slice(self._source.files[number], offset, size)

    def _listed_samples(self, number: int) -> pa.Table:
        tar, source = self._source.files[number], self._source
        samples = tar_index(tar, image=source.image, label_field=source.label_field)
        expected = int(self._starts[number + 1] - self._starts[number])
        if len(samples) != expected:
            raise UsageError(
                f"tar {tar} has {len(samples)} samples here, {expected} where the "
                "extraction was started: make the same tars visible to every host"
            )
        return samples


def _tar_of(row: int, starts: npt.NDArray[np.int64]) -> int:
    # An empty tar has its start in common with the next: the last one has the row.
    return int(np.searchsorted(starts, row, side="right")) - 1


def _matches(pattern: str) -> list[str]:
    found = matches(pattern)
    if not found:
        raise UsageError(f"no tar matches {pattern}: give paths or glob patterns in `files`")
    return found


def _stem(tar: str) -> str:
    return PurePosixPath(tar).stem


def _name(tars: Sequence[str]) -> str:
    """The first tar's name and how many follow: the same wherever they lie."""
    more = f"+{len(tars) - 1}" if len(tars) > 1 else ""
    return f"webdataset/{_stem(tars[0])}{more}"


def _classes(labels: pa.ChunkedArray, source: WebDatasetSource, name: str) -> Classes:
    """Numbers where all labels are, else names. Raises UsageError for a name nobody gave."""
    different: list[str] = pc.unique(labels).drop_null().to_pylist()
    if not all(label.isascii() and label.isdecimal() for label in different):
        try:
            return of_names(labels.to_pylist(), source.class_names)
        except UsageError as error:
            raise UsageError(f"data set {name}: {error}") from None
    filled = pc.fill_null(labels.cast(pa.int64()), UNLABELLED)
    numbers = np.asarray(filled.to_numpy(), dtype=np.int64)
    known = source.class_names
    return of_numbers(numbers) if known is None else Classes(numbers, known)


def _ints(index: pa.Table, column: str) -> npt.NDArray[np.int64]:
    return np.asarray(index.column(column).to_numpy(), dtype=np.int64)


def _keys(tars: Sequence[str], indexes: Sequence[pa.Table], tar_in_key: bool) -> Keys:
    """Raises UsageError for a key that two tars have."""
    prefixes = [f"{_stem(tar)}/" if tar_in_key else "" for tar in tars]
    samples = [TextKeys(index.column("key")) for index in indexes]
    keys = JoinedKeys(list(zip(prefixes, samples, strict=True)))
    twice = repeated(keys)
    if twice is not None:
        starts = np.cumsum([0, *map(len, samples)])
        one, other = (_tar_of(row, starts) for row in twice)
        name = keys[twice[1]].removeprefix(prefixes[other])
        hint = "rename one" if tar_in_key else "list each once, or set `tar_in_key: true`"
        raise UsageError(f"sample {name!r} is in both {tars[one]} and {tars[other]}: {hint}")
    return keys


def _check_any_image(name: str, index: pa.Table) -> None:
    problems = index.column("problem")
    if pc.all(pc.not_equal(problems, "")).as_py():
        raise UsageError(f"data set {name} has no image that can be read: {problems[0].as_py()}")
