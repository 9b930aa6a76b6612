"""TinyImageNet, read from its zip."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from egapipe.pipeline.config.data import ArchiveSource
from egapipe.pipeline.datasets.base import UNLABELLED
from egapipe.pipeline.datasets.decoding.images import SUFFIXES
from egapipe.pipeline.datasets.files.zips import Zip
from egapipe.pipeline.datasets.rows import Rows, RowsDataset, reopened
from egapipe.pipeline.errors import ImageError, UsageError

_FOLDERS = {"train": "train/", "test": "val/", "unlabelled": "test/"}


class TinyImageNetDataset(RowsDataset):
    """64 x 64 JPEG files of 200 classes, in the order of their keys.

    Keys are the paths in the archive below its one folder (`train/n01443537/images/...JPEG`).
    Classes are the WordNet ids, sorted, as a folder of the same images would have them. `test` is
    the archive's labelled validation part, `unlabelled` its test part, whose labels nobody has.
    """

    def __init__(self, source: ArchiveSource, folder: Path) -> None:
        """Raises UsageError for an archive of another layout."""
        self._zip = Zip(_only_file(folder))
        self._top = _top(self._zip)
        images = sorted(_images(self._zip, self._top, _FOLDERS[source.split]))
        classes = sorted(self._text("wnids.txt").split())
        labels = np.array(self._labels(images, classes), dtype=np.int64)
        self._images = images
        super().__init__(source, Rows(f"tinyimagenet/{source.split}", images, labels, classes))

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        """The configuration travels; another node may have to download for itself."""
        from egapipe.pipeline.datasets.files.archives import open_archive

        return reopened(open_archive, self.source)

    def files(self) -> Sequence[str | Path]:
        """The zip."""
        return [self._zip.path]

    def _read(self, row: int) -> bytes:
        return self._zip.read(self._top + self._images[row])

    def _text(self, name: str) -> str:
        try:
            return self._zip.read(self._top + name).decode("utf-8", "replace")
        except ImageError as error:
            raise UsageError(f"archive {self._zip.path}, {name}: {error}") from None

    def _labels(self, images: list[str], classes: list[str]) -> list[int]:
        """One a row: of `train` from the path, of `val` from its annotations."""
        numbers = {name: label for label, name in enumerate(classes)}
        folder = images[0].partition("/")[0] if images else "test"
        if folder == "test":
            return [UNLABELLED] * len(images)
        named = {key: key.split("/")[1] for key in images}
        if folder == "val":
            named = {a.key: a.wnid for a in _annotations(self._text("val/val_annotations.txt"))}
        try:
            return [numbers[named[key]] for key in images]
        except KeyError as error:
            raise UsageError(f"archive {self._zip.path}: no class for {error}") from None


class _Annotation(NamedTuple):
    key: str
    wnid: str


def _annotations(text: str) -> Iterator[_Annotation]:
    """Lines of file name, WordNet id and a box, separated by tabs."""
    for line in text.splitlines():
        name, _, rest = line.partition("\t")
        yield _Annotation(f"val/images/{name}", rest.partition("\t")[0])


def _only_file(folder: Path) -> Path:
    files = sorted(folder.iterdir())
    if len(files) != 1:
        raise UsageError(f"{folder} should hold the archive alone: delete the folder")
    return files[0]


def _top(archive: Zip) -> str:
    """The archive's one folder, by the list of classes in it."""
    tops = [n.removesuffix("wnids.txt") for n in archive.names if n.endswith("/wnids.txt")]
    if len(tops) != 1:
        raise UsageError(f"archive {archive.path} has no wnids.txt: it is not TinyImageNet")
    return tops[0]


def _images(archive: Zip, top: str, folder: str) -> Iterator[str]:
    for name in archive.names:
        if name.startswith(top + folder) and name.lower().endswith(SUFFIXES):
            yield name.removeprefix(top)
