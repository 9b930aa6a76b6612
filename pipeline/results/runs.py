"""The run folder: what one training leaves behind, and where.

config.yaml      the resolved configuration
store.json       the features it learned from, and the images it is tested on, see `learned`
metrics.jsonl    one line an epoch
tensorboard/     the same as event files
checkpoints/     weights and state of the last and the best epoch
summary.json     results; its presence means the run is finished
evaluation.json  what `egapipe evaluate` measured, where it ran; summary.json then has it as well

A run may lie in an object store. Then its small files are read there and put there at once, a
checkpoint is put before its pointer, and a training works in a copy on its node, see `copies`.
"""

import glob
import json
import os
import posixpath
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from filelock import FileLock, Timeout

from egapipe.pipeline.config import Config, to_yaml
from egapipe.pipeline.config.files import read_tree
from egapipe.pipeline.config.load import check
from egapipe.pipeline.disk.files import SMALL, json_object, read_regular, replace_file
from egapipe.pipeline.disk.paths import use_cache
from egapipe.pipeline.errors import InUseError, UsageError, one_line
from egapipe.pipeline.locations.remote import changed_at, is_remote
from egapipe.pipeline.locations.urls import absolute_url, path_of, refuse_credentials
from egapipe.pipeline.results.identity import has_places, run_identity

if TYPE_CHECKING:
    from egapipe.pipeline.locations.copies import Copy, Role
    from egapipe.pipeline.locations.lease import Held

__all__ = ["RunFolder", "folder_at", "older_folder", "open_run", "run_folder", "run_identity"]

# Whoever asks `in_use` holds the lock for a moment.
_LOOKED_SECONDS = 0.5
# The first is what says that a run is finished, so it goes first.
_LEFT = (
    *("summary.json", "evaluation.json", "metrics.jsonl", "checkpoints", "tensorboard"),
    *("model.json", "store.json", "config.yaml", "error.json", "results.json", "refusal.json"),
    *("placement.json", "experiment.json", "ray", "trials", "trials.parquet", "trials.csv"),
    *("best.yaml", "tracked.json"),
)


def run_folder(config: Config, workers: int | None = None) -> "RunFolder":
    """The folder of a configuration: the same configuration finds the same folder again.

    Also one of an older egapipe, whose name had the places of images and teacher in it. workers:
    see `run_identity`.
    """
    terms = config.distill.objective.model_dump(exclude_none=True)
    label = "+".join(terms) or "ce"
    stem = f"{config.distill.student.name}-{label}-seed{config.distill.seed}-"
    stem = stem.replace(":", ".").replace("/", ".")
    identity = run_identity(config, workers)
    place = f"{config.runs.rstrip('/')}/{config.name}/{stem}{identity}"
    if is_remote(absolute_url(place)):
        use_cache(config.store.cache_dir)
        return folder_at(place)
    folder = path_of(config.runs) / config.name / f"{stem}{identity}"
    if not folder.exists() and has_places(config):
        folder = (
            older_folder(folder.parent, stem, identity, partial(run_identity, workers=workers))
            or folder
        )
    return RunFolder(folder)


def folder_at(place: str, role: "Role" = "work") -> "RunFolder":
    """The folder at a path or a URL; of the latter the copy that a training works in, or the one
    that readers share. Raises UsageError for a URL with a secret, which it does not repeat."""
    url = absolute_url(place)
    if not is_remote(url):
        return RunFolder(path_of(place))
    refuse_credentials(url)
    # Imported here: most runs lie on a disk.
    from egapipe.pipeline.locations.copies import copy_path

    return RunFolder(copy_path(url, role), url)


def open_run(place: "RunFolder | str | Path") -> "RunFolder":
    """The folder at a path or a URL, to be read."""
    if isinstance(place, RunFolder):
        return place
    return folder_at(str(place), "read") if is_remote(place) else RunFolder(Path(place))


def older_folder(
    parent: Path, stem: str, identity: str, identity_of: Callable[[Config], str]
) -> Path | None:
    """The folder `<stem><8 digits>` whose recorded configuration has this identity, whatever it is
    called; a finished one first. None if there is none."""
    found = sorted(parent.glob(f"{glob.escape(stem)}????????"))
    same = [folder for folder in found if _recorded(folder, identity_of) == identity]
    return min(same, key=lambda folder: not RunFolder(folder).finished, default=None)


def _recorded(folder: Path, identity_of: Callable[[Config], str]) -> str | None:
    try:
        file = folder / "config.yaml"
        return identity_of(_read_config(str(file), file.stat().st_mtime_ns))
    except (OSError, UsageError):
        return None


@lru_cache(maxsize=4096)
def _read_config(file: str, _changed: int) -> Config:
    return RunFolder(Path(file).parent).config()


def _first_rows(tree: Any) -> Any:
    """The sources of a resolved configuration, with what a plain number of rows meant in it."""
    if isinstance(tree, list):
        return [_first_rows(value) for value in tree]
    if not isinstance(tree, dict):
        return tree
    return {
        key: {"rows": value, "choose": "first"}
        if key == "limit" and isinstance(value, int)
        else _first_rows(value)
        for key, value in tree.items()
    }


@dataclass(frozen=True)
class RunFolder:
    """Paths and small files of one run.

    path: of a run elsewhere, this node's copy. url: where that lies. held: by which this process
    may write there, see `exclusive`.
    """

    path: Path
    url: str | None = None
    held: "Held | None" = None

    @property
    def where(self) -> str:
        """Path or URL, for people."""
        return self.url or str(self.path)

    @property
    def place(self) -> Path | str:
        """Path or URL, for `open_run`."""
        return self.url or self.path

    @property
    def metrics(self) -> Path:
        """One JSON line an epoch."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        """Folder of TensorBoard events."""
        return self.path / "tensorboard"

    @property
    def finished(self) -> bool:
        """Whether the run has its summary."""
        return self.has("summary.json")

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""
        if self._copy is None:
            return (self.path / name).is_file()
        return self._copy.objects.part(name, 0, 1) is not None

    def begin(self, config: Config, store: Mapping[str, Any]) -> None:
        """Write what the run is made from."""
        self.write("config.yaml", to_yaml(config).encode())
        self.write_json("store.json", store)

    def config(self) -> Config:
        """The run's configuration. Raises UsageError if this is no run folder."""
        self.fetch("config.yaml")
        if not (self.path / "config.yaml").is_file():
            raise UsageError(f"{self.where} is not a run folder: it has no config.yaml")
        # Nothing of it is imported here: whoever builds the student asks whether that is trusted.
        tree = read_tree(str(self.path / "config.yaml"))
        # Resolved by an egapipe whose limits, plain numbers then, took the first rows.
        return check({**tree, "dataset": _first_rows(tree.get("dataset"))}, str(self.path))

    def summary(self) -> dict[str, Any]:
        """The results. Raises UsageError if the run is not finished."""
        return self.read_json("summary.json")

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file of the run, whole or not at all."""
        self.write(name, (json.dumps(content, indent=2) + "\n").encode())

    def write(self, name: str, data: bytes) -> None:
        """Write a small file of the run, whole or not at all."""
        self.path.mkdir(parents=True, exist_ok=True)
        replace_file(self.path / name, data)
        self.put(name)

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a JSON file of the run. Raises UsageError if it is missing or damaged."""
        return json_object(self.read(name), f"{self.where}/{name}")

    def read(self, name: str) -> bytes:
        """The bytes of a small file, where the run lies. Raises UsageError if there is none."""
        where = f"{self.where}/{name}"
        if self._copy is None:
            try:
                return read_regular(self.path / name)
            except (OSError, ValueError) as error:
                raise UsageError(f"{where} cannot be read: {one_line(error)}") from None
        data = self._copy.objects.part(name, 0, SMALL + 1)
        if data is None:
            raise UsageError(f"{where} cannot be read: there is none")
        if len(data) > SMALL:
            raise UsageError(f"{where} cannot be read: it is larger than {SMALL:,} bytes")
        return data

    def fetch(self, *names: str) -> None:
        """Bring files of a run elsewhere to this node, see `Copy.fetch`; others are there."""
        if self._copy is not None:
            self._copy.fetch(*names)

    def put(self, *names: str) -> None:
        """Take files, and folders with a slash at their end, there where the run lies."""
        if self._copy is not None:
            self._copy.put(*names)

    def replace_there(self, *folders: str) -> None:
        """Take whole folders, with a slash at their end, there where the run lies, and remove there
        what they no longer have."""
        if self._copy is not None:
            for folder in folders:
                self._copy.put(folder)
                there = self._copy.objects.sizes(folder.rstrip("/"))
                self._copy.discard(*(key for key in there if not (self.path / key).is_file()))

    def beside(self, relative: str, role: "Role" = "read") -> "RunFolder":
        """Another folder, by its path relative to this one, to be read or worked in."""
        if self.url is None:
            return RunFolder(self.path / relative)
        scheme, _, rest = self.url.partition("://")
        return folder_at(f"{scheme}://{posixpath.normpath(f'{rest}/{relative}')}", role)

    def relative(self, other: "RunFolder") -> str:
        """The path of another folder relative to this one, as `beside` takes it."""
        if self.url is None or other.url is None:
            return os.path.relpath(other.path, self.path)
        own, its = (url.partition("://")[2] for url in (self.url, other.url))
        return posixpath.relpath(its, own)

    def changed(self, name: str) -> float:
        """When a file was last written to, in seconds since 1970. Raises OSError if there is none.

        Raises StoreError.
        """
        if self._copy is None:
            return (self.path / name).stat().st_mtime
        with self._copy.objects.explained("read", name):
            return changed_at(f"{self.url}/{name}")

    def require_held(self) -> None:
        """Raise TrainingError if another process has taken a run elsewhere over."""
        if self._copy is not None and self.held is not None:
            from egapipe.pipeline.locations.lease import require_held

            require_held(self._copy.objects, self.held, f"run {self.where}")

    def discard(self, *names: str) -> None:
        """Remove files, and folders with a slash at their end, here and where the run lies."""
        if self._copy is not None:
            self._copy.discard(*names)
        for name in names:
            path = self.path / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def keep_below(self, folder: str, names: Collection[str]) -> None:
        """Remove sub-folders of a run elsewhere that are not among these names."""
        if self._copy is not None:
            keys = self._copy.objects.sizes(folder)
            parts = [key.split("/") for key in keys if key.count("/") > 1]
            others = {part[1] for part in parts} - set(names)
            self._copy.discard(*(f"{folder}/{name}/" for name in sorted(others)))

    @cached_property
    def _copy(self) -> "Copy | None":
        if self.url is None:
            return None
        from egapipe.pipeline.locations.copies import Copy

        return Copy(self.url, self.path)

    def clear(self) -> None:
        """Remove what an earlier run or sweep left; the user's notes beside it stay."""
        folders = {"checkpoints", "tensorboard", "ray", "trials"}
        self.discard(*(f"{name}/" if name in folders else name for name in _LEFT))

    @property
    def _lock(self) -> Path:
        own = self.path.parent / f".{self.path.name}.lock"
        return own if self._copy is None else self._copy.lock

    def in_use(self) -> bool:
        """Whether a process holds the run, as far as can be told from here."""
        if self._copy is not None:
            from egapipe.pipeline.locations.lease import seems_held

            return seems_held(self._copy.objects, lambda key: changed_at(f"{self.url}/{key}"))
        if not self._lock.is_file():
            return False
        try:
            with FileLock(self._lock, timeout=0):
                return False
        except Timeout:
            return True
        except OSError:
            # Of another user, say.
            return False

    @contextmanager
    def exclusive(self) -> Iterator[Self]:
        """Hold the run for this process; of one elsewhere, what is there is here then.

        Raises InUseError if another has it, UsageError if runs cannot be written there.
        """
        lock = FileLock(self._lock, timeout=_LOOKED_SECONDS)
        try:
            Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            raise InUseError(f"run {self.where} is being trained by another process") from None
        except OSError as error:
            raise UsageError(
                f"cannot write {self.path.parent}: {error.strerror}: set runs to another folder"
            ) from None
        try:
            with self._leased() as held:
                yield held
        finally:
            lock.release()

    @contextmanager
    def _leased(self) -> Iterator[Self]:
        if self._copy is None:
            yield self
            return
        from egapipe.pipeline.locations.lease import leased

        with leased(self._copy.objects, f"run {self.where}") as held:
            self.fetch()
            yield replace(self, held=held)
