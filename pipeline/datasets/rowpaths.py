"""The image files that the rows of a table name: found once, from where the table lies."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets

from egapipe.pipeline.config.data import HubSource, ParquetSource
from egapipe.pipeline.errors import ImageError, UsageError

_ALLOW = "set `outside: true` on the source if its table is trusted"


@dataclass(frozen=True)
class RowPaths:
    """base: what a relative path is below; None where there is no such folder. roots: folders that
    rows may name files of, resolved; None for all files of this machine."""

    base: Path | None
    roots: tuple[Path, ...] | None

    @classmethod
    def of(cls, source: HubSource | ParquetSource) -> "RowPaths":
        """Those of an opened source, whose own paths are absolute."""
        base = _base(source)
        roots = [base] if base is not None else []
        if isinstance(source, HubSource):
            roots += _caches()
        allowed = None if source.outside else tuple(Path(os.path.realpath(root)) for root in roots)
        return cls(base, allowed)

    def check(self, paths: Iterable[str], where: str) -> None:
        """Raise UsageError, before anything is read, for a path that is not below the roots.

        Links are not followed yet: they may change.
        """
        for path in paths:
            file = Path(os.path.normpath(self.absolute(path, where)))
            if self.roots is not None and not _is_below(file, self._written):
                raise UsageError(
                    f"{where} names the file {path!r}, which is not below the table's folder: "
                    f"{_ALLOW}"
                )

    def file(self, path: str) -> Path:
        """The file of a row. Raises ImageError if a link leads out of the roots."""
        file = self.absolute(path)
        # Resolved at the time of reading, with every link on the way.
        if self.roots is not None and not _is_below(Path(os.path.realpath(file)), self.roots):
            raise ImageError(f"its file is a link that leads out of the table's folder: {_ALLOW}")
        return file

    @property
    def _written(self) -> Sequence[Path]:
        """The roots, and the base as it was written."""
        return [*(self.roots or ()), *([self.base] if self.base is not None else [])]

    def absolute(self, path: str, where: str = "the table") -> Path:
        """The file of a row, before links are resolved. Raises UsageError if that is undecided."""
        if os.path.isabs(path):
            return Path(path)
        if self.base is None:
            raise UsageError(
                f"{where} names the file {path!r}, and has no one folder that it could be below: "
                "put the table's files into one folder, or write absolute paths"
            )
        return self.base / path


def _base(source: HubSource | ParquetSource) -> Path | None:
    if isinstance(source, HubSource):
        folder = Path(source.name)
        return folder if folder.is_absolute() else None
    folders = {Path(file).parent for file in source.files}
    return folders.pop() if len(folders) == 1 else None


def _caches() -> list[Path]:
    """Where a data set's own files are once they are downloaded."""
    from huggingface_hub import constants

    return [Path(datasets.config.HF_DATASETS_CACHE), Path(constants.HF_HUB_CACHE)]


def _is_below(file: Path, folders: Iterable[Path]) -> bool:
    return any(file.is_relative_to(folder) for folder in folders)
