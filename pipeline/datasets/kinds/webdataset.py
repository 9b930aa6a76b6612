"""Images in WebDataset tars, read in place."""

import tarfile
from collections.abc import Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from egapipe.pipeline.config.data import WebDatasetSource
from egapipe.pipeline.datasets.base import UNLABELLED, Images
from egapipe.pipeline.datasets.classes import Classes, of_names, of_numbers
from egapipe.pipeline.datasets.decoding.reading import MAX_BYTES, read_slice
from egapipe.pipeline.datasets.files.extents import Extent, Extents, Ints, Learnt
from egapipe.pipeline.datasets.files.patterns import matches
from egapipe.pipeline.datasets.files.tarindex import tar_index
from egapipe.pipeline.datasets.rows import RowImages, Rows, RowsDataset
from egapipe.pipeline.errors import ImageError, UsageError
from egapipe.pipeline.keys import JoinedKeys, Keys, TextKeys, repeated
from egapipe.pipeline.locations.remote import at_once

# A scan reads a tar once: several keep a disk or a network busy.
_SCANS = 4


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
        self._problems = _problems(index)
        if len(self._problems) == len(index):
            raise UsageError(
                f"data set {self.name} has no image that can be read: {self._problems[0]}"
            )

    def for_workers(self, keys: Sequence[str]) -> Images:
        """A worker is told where the images of its shards lie."""
        return TarImages(self.name, keys, lister=self)

    def extents(self, rows: Sequence[int]) -> Extents:
        """See `Images`; whole arrays, as whoever hands out the work makes them for everybody."""
        asked = np.sort(np.asarray(rows, np.int64))
        listed = asked if self._chosen is None else self._chosen[asked]
        tars, number = np.unique(_tar_of(listed, self._starts), return_inverse=True)
        pairs = zip(asked.tolist(), listed.tolist(), strict=True)
        return Extents(
            rows=asked,
            files=[self._tars[tar] for tar in tars],
            number=number,
            offset=self._offsets[listed],
            size=self._sizes[listed],
            problems={
                row: self._problems[place] for row, place in pairs if place in self._problems
            },
        )

    def files(self) -> Sequence[str]:
        """The tars."""
        return self._tars

    def _read(self, row: int) -> bytes:
        if row in self._problems:
            raise ImageError(self._problems[row])
        tar = self._tars[int(_tar_of(row, self._starts))]
        return read_slice(tar, int(self._offsets[row]), int(self._sizes[row]))


class TarImages(RowImages):
    """The images of tars, without a list of their samples: no tar is scanned a second time.

    The header before an image is read with it, which costs nothing: another tar under the same
    name, on another host or written since, shows there.
    """

    def __init__(
        self,
        name: str,
        keys: Sequence[str],
        known: Sequence[Extents] = (),
        *,
        lister: TarDataset | None = None,
    ) -> None:
        """lister: who lists the samples, in its own process."""
        super().__init__(name, keys)
        self._learnt = Learnt(known)
        self._lister = lister

    def __reduce__(self) -> tuple[Any, ...]:
        return TarImages, (self.name, self.keys, self._learnt.known)

    def extents(self, rows: Sequence[int]) -> Extents:
        """See `Images`; of rows that it was told of itself, where nobody lists them here."""
        if self._lister is not None:
            return self._lister.extents(rows)
        return Extents.of({row: self._extent(row) for row in rows})

    def learn(self, extents: Extents) -> None:
        """See `Images`."""
        self._learnt.add(extents)

    def _extent(self, row: int) -> Extent:
        found = self._learnt.get(row)
        if found is None and self._lister is not None:
            found = self._lister.extents([row]).get(row)
        if found is None:
            raise LookupError(f"nobody has told where row {row} of data set {self.name} lies")
        return found

    def _read(self, row: int) -> bytes:
        tar, offset, size, problem = self._extent(row)
        if problem:
            raise ImageError(problem)
        if size > MAX_BYTES - tarfile.BLOCKSIZE:
            return read_slice(tar, offset, size)
        try:
            data = read_slice(tar, offset - tarfile.BLOCKSIZE, size + tarfile.BLOCKSIZE)
            header = data[: tarfile.BLOCKSIZE]
            there = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape").size
        except (ImageError, tarfile.HeaderError) as error:
            raise _another(tar, str(error)) from error
        if there != size:
            raise _another(tar, f"an image of {there:,} bytes lies there in place of {size:,}")
        return data[tarfile.BLOCKSIZE :]


def _another(tar: str, found: str) -> UsageError:
    return UsageError(
        f"tar {tar} is not here what it was where the extraction was started ({found}): make the "
        "same tars visible to every host"
    )


def _tar_of(rows: int | Ints, starts: Ints) -> Ints:
    # An empty tar has its start in common with the next: the last one has the row.
    return np.asarray(np.searchsorted(starts, rows, side="right") - 1, np.int64)


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


def _ints(index: pa.Table, column: str) -> Ints:
    return np.asarray(index.column(column).to_numpy(), dtype=np.int64)


def _keys(tars: Sequence[str], indexes: Sequence[pa.Table], tar_in_key: bool) -> Keys:
    """Raises UsageError for a key that two tars have."""
    prefixes = [f"{_stem(tar)}/" if tar_in_key else "" for tar in tars]
    samples = [TextKeys(index.column("key")) for index in indexes]
    keys = JoinedKeys(list(zip(prefixes, samples, strict=True)))
    twice = repeated(keys)
    if twice is not None:
        starts = np.cumsum([0, *map(len, samples)])
        one, other = (int(_tar_of(row, starts)) for row in twice)
        name = keys[twice[1]].removeprefix(prefixes[other])
        hint = "rename one" if tar_in_key else "list each once, or set `tar_in_key: true`"
        raise UsageError(f"sample {name!r} is in both {tars[one]} and {tars[other]}: {hint}")
    return keys


def _problems(index: pa.Table) -> dict[int, str]:
    """Row -> why it has no image."""
    column = index.column("problem")
    rows = np.flatnonzero(pc.not_equal(column, "").to_numpy())
    return dict(zip(rows.tolist(), column.take(rows).to_pylist(), strict=True))
