"""The image files that the rows of a table name: found once, from where the table lies."""

import os
import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import datasets

from egapipe.pipeline.config.data import HubSource, ParquetSource
from egapipe.pipeline.datasets.decoding.reading import read_bytes
from egapipe.pipeline.errors import ImageError, UsageError
from egapipe.pipeline.locations.remote import is_remote

_ALLOW = "set `outside: true` on the source if its table is trusted"


@dataclass(frozen=True)
class RowPaths:
    """base: what a relative path is below, a folder or its URL; None where there is no such one.
    roots: folders that rows may name files of, resolved; None for all files of this machine, and of
    the base's storage."""

    base: str | None
    roots: tuple[str, ...] | None

    @classmethod
    def of(cls, source: HubSource | ParquetSource) -> "RowPaths":
        """Those of an opened source, whose own paths are absolute."""
        base = _base(source)
        roots = [base] if base is not None else []
        if isinstance(source, HubSource):
            roots += _caches()
        allowed = None if source.outside else tuple(map(_resolved, roots))
        return cls(base, allowed)

    def check(self, paths: Iterable[str], where: str) -> None:
        """Raise UsageError, before anything is read, for a path that is not below the roots.

        Links are not followed yet: they may change.
        """
        for path in paths:
            file = self.absolute(path, where)
            if self.roots is not None and not _is_below(file, self._written):
                raise UsageError(
                    f"{where} names the file {path!r}, which is not below the table's folder: "
                    f"{_ALLOW}"
                )

    def content(self, data: bytes | None, path: str | None) -> bytes:
        """The bytes of a row's image: its own, else those of the file at its path.

        Raises ImageError, MachineError.
        """
        if data is not None:
            return data
        if path is None:
            raise ImageError("the row has neither bytes nor a path")
        return read_bytes(self.file(path))

    def file(self, path: str) -> str:
        """Path or URL of a row's file. Raises ImageError if a link leads out of the roots."""
        file = self.absolute(path)
        # Resolved at the time of reading, with every link on the way.
        if self.roots is not None and not _is_below(_resolved(file), self.roots):
            raise ImageError(f"its file is a link that leads out of the table's folder: {_ALLOW}")
        return file

    @property
    def _written(self) -> Sequence[str]:
        """The roots, and the base as it was written."""
        return [*(self.roots or ()), *([self.base] if self.base is not None else [])]

    def absolute(self, path: str, where: str = "the table") -> str:
        """The file of a row, before links are resolved. Raises UsageError if that is undecided, or
        at a URL of another storage than the table's."""
        if is_remote(path) and is_remote(self.base):
            if _scheme(path) == _scheme(str(self.base)):
                return path
            raise UsageError(
                f"{where} names the file {path!r}, which is of another storage than the table: "
                "copy it there"
            )
        if os.path.isabs(path):
            return path
        if self.base is None:
            raise UsageError(
                f"{where} names the file {path!r}, and has no one folder that it could be below: "
                "put the table's files into one folder, or write absolute paths"
            )
        return f"{self.base.rstrip('/')}/{path}"


def _base(source: HubSource | ParquetSource) -> str | None:
    if isinstance(source, HubSource):
        return source.name if os.path.isabs(source.name) else None
    folders = {os.path.dirname(file) for file in source.files}
    return folders.pop() if len(folders) == 1 else None


def _caches() -> list[str]:
    """Where a data set's own files are once they are downloaded."""
    from huggingface_hub import constants

    return [str(datasets.config.HF_DATASETS_CACHE), str(constants.HF_HUB_CACHE)]


def _resolved(file: str) -> str:
    """Elsewhere there are no links."""
    return file if is_remote(file) else os.path.realpath(file)


def _scheme(url: str) -> str:
    return url.partition("://")[0]


def _is_below(file: str, folders: Iterable[str]) -> bool:
    """As it is written, and as a web server may read it."""
    if not is_remote(file):
        return any(Path(os.path.normpath(file)).is_relative_to(folder) for folder in folders)
    scheme, _, rest = file.partition("://")
    forms = {f"{scheme}://{posixpath.normpath(text)}" for text in (rest, unquote(rest))}
    return all(any(f"{form}/".startswith(f"{top}/") for top in folders) for form in forms)
