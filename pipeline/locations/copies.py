"""This node's copy of a folder of files in an object store, which has the truth.

What a training writes is put there as soon as it counts; what a reader needs is fetched from there.
A file that was fetched, and has not changed since on either side, is not fetched again.
"""

import hashlib
import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from egapipe.pipeline.disk.caches import RUNS, lock_of, touch
from egapipe.pipeline.disk.files import replace_file
from egapipe.pipeline.disk.paths import cache_dir
from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.locations.remote import RemoteState, at_once, states_below
from egapipe.pipeline.store.objects.remote import RemoteObjects

Role = Literal["work", "read"]

_KNOWN, _FETCHING = "known.json", "fetching.lock"
_LEFT_OUT = ("ray/", "lease/")
# Two threads write a run: a file is not overtaken by what it was before.
_putting = threading.Lock()


def copy_path(url: str, role: Role) -> Path:
    """Where this node's copy of what lies at a URL is; it has the same name.

    role: a training works in one copy, which it alone may touch; readers share another one.
    """
    key = f"run{hashlib.sha256(f'{role} {url}'.encode()).hexdigest()}-{role}"
    return RUNS.file(cache_dir(), key) / url.rpartition("/")[2]


class Copy:
    """The copy in `path`, see `copy_path`, of what lies at a URL."""

    def __init__(self, url: str, path: Path) -> None:
        self.objects, self.path = RemoteObjects(url, "runs"), path
        self._entry = path.parent
        self.lock = lock_of(RUNS, self._entry.parent, self._entry.name)

    def fetch(self, *wanted: str) -> None:
        """Make files here what they are there. wanted: files, and folders with a slash at their
        end, relative; all files without any. Raises StoreError.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        touch(self._entry)
        with self.objects.explained("read", ""), FileLock(self._entry / _FETCHING):
            there = states_below(self.objects.url)
            names = {name for name in there if _is_wanted(name, wanted)}
            self._check_inside(names)
            here = {
                p.relative_to(self.path).as_posix() for p in self.path.rglob("*") if p.is_file()
            }
            for name in here - names:
                if _is_wanted(name, wanted):
                    (self.path / name).unlink()
            known = self._known()
            old = sorted(n for n in names if not self._is_known(n, there[n], known))
            at_once(self._fetch_one, old)
            known |= {name: self._record(name, there[name]) for name in old}
            replace_file(self._entry / _KNOWN, json.dumps(known).encode())

    def put(self, *names: str) -> None:
        """Put files, in this order; a name with a slash at its end is all files of a folder.

        Raises StoreError.
        """
        for name in names:
            folder = self.path / name
            files = (
                sorted(f for f in folder.rglob("*") if f.is_file()) if name[-1] == "/" else [folder]
            )
            for file in files:
                with _putting:
                    self.objects.put(file.relative_to(self.path).as_posix(), file.read_bytes())

    def discard(self, *names: str) -> None:
        """Remove files there, in this order; a name with a slash at its end is a folder's files.

        Raises StoreError.
        """
        for name in names:
            keys = self.objects.sizes(name.rstrip("/")) if name[-1] == "/" else [name]
            at_once(self.objects.delete, list(keys))

    def _check_inside(self, names: Iterable[str]) -> None:
        """Raise StoreError for a key that would be a file outside of the copy, or nowhere."""
        for name in names:
            if not {"", ".", ".."}.isdisjoint(name.split("/")) or "\0" in name:
                raise StoreError(
                    f"{self.objects.url} holds the key {name!r}, which is no file of a run: remove "
                    "it there"
                )

    def _fetch_one(self, name: str) -> None:
        data = self.objects.get(name)
        if data is None:
            raise StoreError(f"{self.objects.url}/{name} has gone while it was fetched: try again")
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, data)

    def _known(self) -> dict[str, Any]:
        try:
            found = json.loads((self._entry / _KNOWN).read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _is_known(self, name: str, there: RemoteState, known: Mapping[str, Any]) -> bool:
        """Whether a file is here, and neither side has changed since it was fetched."""
        return (self.path / name).is_file() and known.get(name) == self._record(name, there)

    def _record(self, name: str, there: RemoteState) -> list[Any]:
        """What stands for a file on both sides."""
        here = (self.path / name).stat()
        return [there.size, there.version, here.st_size, here.st_mtime_ns, here.st_ino]


def _is_wanted(name: str, wanted: Sequence[str]) -> bool:
    if not wanted:
        return not name.startswith(_LEFT_OUT)
    return any(name.startswith(w) if w.endswith("/") else name == w for w in wanted)
