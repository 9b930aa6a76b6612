"""Images in WebDataset tars, read in place."""

from collections.abc import Sequence
from functools import partial
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from egapipe.pipeline.config.data import WebDatasetSource
from egapipe.pipeline.datasets.base import UNLABELLED
from egapipe.pipeline.datasets.classes import Classes, of_names, of_numbers
from egapipe.pipeline.datasets.patterns import matches
from egapipe.pipeline.datasets.reading import read_slice
from egapipe.pipeline.datasets.rows import Rows, RowsDataset
from egapipe.pipeline.datasets.tarindex import tar_index
from egapipe.pipeline.errors import ImageError, UsageError
from egapipe.pipeline.remote import at_once

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
        labels, classes, numbers = _classes(index.column("label").to_pylist(), source, name)
        super().__init__(source, Rows(name, keys, labels, classes, numbers))
        self._number = np.repeat(np.arange(len(indexes)), [len(one) for one in indexes])
        self._offsets, self._sizes = _ints(index, "offset"), _ints(index, "size")
        self._problems = index.column("problem")
        _check_any_image(self.name, index)

    def files(self) -> Sequence[str]:
        """The tars."""
        return self._tars

    def _read(self, row: int) -> bytes:
        problem: str = self._problems[row].as_py()
        if problem:
            raise ImageError(problem)
        tar = self._tars[self._number[row]]
        return read_slice(tar, int(self._offsets[row]), int(self._sizes[row]))


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


def _classes(labels: Sequence[str | None], source: WebDatasetSource, name: str) -> Classes:
    """Numbers where all labels are, else names. Raises UsageError for a name nobody gave."""
    if not all(label is None or (label.isascii() and label.isdecimal()) for label in labels):
        try:
            return of_names(labels, source.class_names)
        except UsageError as error:
            raise UsageError(f"data set {name}: {error}") from None
    numbers = np.array([UNLABELLED if label is None else int(label) for label in labels], np.int64)
    known = source.class_names
    return of_numbers(numbers) if known is None else Classes(numbers, known)


def _ints(index: pa.Table, column: str) -> npt.NDArray[np.int64]:
    return np.asarray(index.column(column).to_numpy(), dtype=np.int64)


def _keys(tars: Sequence[str], indexes: Sequence[pa.Table], tar_in_key: bool) -> list[str]:
    """Raises UsageError for a key that two tars have."""
    owners: dict[str, str] = {}
    for tar, index in zip(tars, indexes, strict=True):
        prefix = f"{_stem(tar)}/" if tar_in_key else ""
        for name in index.column("key").to_pylist():
            owner = owners.setdefault(prefix + name, tar)
            if owner is not tar:
                hint = "rename one" if tar_in_key else "list each once, or set `tar_in_key: true`"
                raise UsageError(f"sample {name!r} is in both {owner} and {tar}: {hint}")
    return list(owners)


def _check_any_image(name: str, index: pa.Table) -> None:
    problems = index.column("problem").to_pylist()
    if all(problems):
        raise UsageError(f"data set {name} has no image that can be read: {problems[0]}")
