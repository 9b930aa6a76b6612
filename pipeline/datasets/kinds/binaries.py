"""Images as records of raw pixels: the binary versions of CIFAR-100 and STL-10."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from egapipe.pipeline.config.data import ArchiveSource
from egapipe.pipeline.datasets.base import UNLABELLED, Labels
from egapipe.pipeline.datasets.decoding.images import Divisor
from egapipe.pipeline.datasets.decoding.reading import of_machine, read_slice
from egapipe.pipeline.datasets.rows import Rows, RowsDataset, reopened
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.keys import NumberedKeys

Bytes = npt.NDArray[np.uint8]


class Layout(NamedTuple):
    """A record: `head` bytes, then the red, green and blue plane of a square image."""

    side: int
    head: int
    by_columns: bool
    """Each plane column after column, as Matlab keeps it, in place of row after row."""

    @property
    def pixels(self) -> int:
        """Bytes of the three planes."""
        return 3 * self.side * self.side

    @property
    def record(self) -> int:
        """Bytes of a record."""
        return self.head + self.pixels


CIFAR100 = Layout(side=32, head=2, by_columns=False)
STL10 = Layout(side=96, head=0, by_columns=True)


class BinaryDataset(RowsDataset):
    """Records of a file, in their order; keys are `<name>/<split>/<row>`.

    The stored bytes of a row are its pixels, without the label.
    """

    def __init__(
        self, source: ArchiveSource, folder: Path, layout: Layout, file: str, rows: Rows
    ) -> None:
        super().__init__(source, rows)
        self._folder, self._layout, self._file = folder, layout, folder / file

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        """The configuration travels; another node may have to download for itself."""
        from egapipe.pipeline.datasets.files.archives import open_archive

        return reopened(open_archive, self.source)

    def files(self) -> Sequence[str | Path]:
        """The unpacked files of the archive, labels included."""
        return sorted(self._folder.iterdir())

    def decoded(self, row: int, data: bytes, divisor: Divisor | None = None) -> Image.Image:
        """See `RowsDataset`."""
        side = self._layout.side
        planes = np.frombuffer(data, np.uint8).reshape(3, side, side)
        axes = (2, 1, 0) if self._layout.by_columns else (1, 2, 0)
        return Image.fromarray(np.ascontiguousarray(planes.transpose(axes)))

    def _read(self, row: int) -> bytes:
        layout = self._layout
        return read_slice(self._file, row * layout.record + layout.head, layout.pixels)


def open_cifar100(source: ArchiveSource, folder: Path) -> BinaryDataset:
    """`train.bin` or `test.bin`: records of coarse label, fine label, 3,072 pixels.

    Labels are the fine ones, 0..99. Raises UsageError for another layout.
    """
    file = f"{source.split}.bin"
    records = _bytes(folder / file, CIFAR100.record).reshape(-1, CIFAR100.record)
    classes = _names(folder / "fine_label_names.txt")
    labels = records[:, 1].astype(np.int64)
    rows = _rows(source, labels, classes)
    return BinaryDataset(source, folder, CIFAR100, file, rows)


def open_stl10(source: ArchiveSource, folder: Path) -> BinaryDataset:
    """`train`, `test` or `unlabeled`: 27,648 pixels a record, labels 1..10 in a file of their own.

    They become 0..9. Raises UsageError for another layout.
    """
    part = {"unlabelled": "unlabeled"}.get(source.split, source.split)
    n = _bytes(folder / f"{part}_X.bin", STL10.record).size // STL10.record
    labels = np.full(n, UNLABELLED, dtype=np.int64)
    if part != "unlabeled":
        labels = _bytes(folder / f"{part}_y.bin", 1).astype(np.int64) - 1
        if len(labels) != n:
            raise UsageError(
                f"{folder}: {n} images in {part}_X.bin, {len(labels)} labels beside it"
            )
    rows = _rows(source, labels, _names(folder / "class_names.txt"))
    return BinaryDataset(source, folder, STL10, f"{part}_X.bin", rows)


def _rows(source: ArchiveSource, labels: Labels, classes: list[str]) -> Rows:
    name = f"{source.name}/{source.split}"
    digits = len(str(len(labels)))
    return Rows(name, NumberedKeys([(f"{name}/", range(len(labels)))], digits), labels, classes)


def _bytes(file: Path, record: int) -> Bytes:
    """A memory map, uint8 [bytes]. Raises UsageError unless it is a whole number of records."""
    try:
        size = file.stat().st_size
        if size == 0 or size % record:
            raise UsageError(
                f"{file} has {size:,} bytes, not a multiple of {record:,}: is it whole?"
            )
        return np.memmap(file, np.uint8, mode="r")
    except OSError as error:
        remedy = "" if of_machine(error) else "; delete its folder"
        raise UsageError(f"{file} cannot be read: {error.strerror}{remedy}") from None


def _names(file: Path) -> list[str]:
    try:
        return file.read_text("utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"class names {file} cannot be read: {error}") from None
