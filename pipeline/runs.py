"""The run folder: what one training leaves behind, and where.

config.yaml      the resolved configuration
store.json       the features it learned from, and the images it is tested on, see `learned`
metrics.jsonl    one line an epoch
tensorboard/     the same as event files
checkpoints/     weights and state of the last and the best epoch
summary.json     results; its presence means the run is finished
evaluation.json  what `egapipe evaluate` measured, where it ran; summary.json then has it as well
"""

import glob
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from egapipe.pipeline.config import Config, to_yaml
from egapipe.pipeline.config.files import read_tree
from egapipe.pipeline.config.load import check
from egapipe.pipeline.errors import TrainingError, UsageError
from egapipe.pipeline.files import read_json_object, replace_file
from egapipe.pipeline.identity import has_places, run_identity
from egapipe.pipeline.urls import path_of

__all__ = ["RunFolder", "older_folder", "run_folder", "run_identity"]

# The first is what says that a run is finished, so it goes first.
_LEFT = (
    *("summary.json", "evaluation.json", "metrics.jsonl", "checkpoints", "tensorboard"),
    *("model.json", "store.json", "config.yaml", "error.json", "results.json", "refusal.json"),
    *("ray", "trials", "trials.parquet", "trials.csv", "best.yaml", "tracked.json"),
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
    folder = path_of(config.runs) / config.name / f"{stem}{identity}"
    if not folder.exists() and has_places(config):
        folder = (
            older_folder(folder.parent, stem, identity, partial(run_identity, workers=workers))
            or folder
        )
    return RunFolder(folder)


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
    """Paths and small files of one run."""

    path: Path

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
        return (self.path / "summary.json").is_file()

    def begin(self, config: Config, store: Mapping[str, Any]) -> None:
        """Write what the run is made from."""
        self.path.mkdir(parents=True, exist_ok=True)
        replace_file(self.path / "config.yaml", to_yaml(config).encode())
        self.write_json("store.json", store)

    def config(self) -> Config:
        """The run's configuration. Raises UsageError if this is no run folder."""
        if not (self.path / "config.yaml").is_file():
            raise UsageError(f"{self.path} is not a run folder: it has no config.yaml")
        # Nothing of it is imported here: whoever builds the student asks whether that is trusted.
        tree = read_tree(str(self.path / "config.yaml"))
        # Resolved by an egapipe whose limits, plain numbers then, took the first rows.
        return check({**tree, "dataset": _first_rows(tree.get("dataset"))}, str(self.path))

    def summary(self) -> dict[str, Any]:
        """The results. Raises UsageError if the run is not finished."""
        return self.read_json("summary.json")

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file of the run, whole or not at all."""
        replace_file(self.path / name, (json.dumps(content, indent=2) + "\n").encode())

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a JSON file of the run. Raises UsageError if it is missing or damaged."""
        return read_json_object(self.path / name)

    def clear(self) -> None:
        """Remove what an earlier run or sweep left; the user's notes beside it stay."""
        for name in _LEFT:
            path = self.path / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the run for this process.

        Raises TrainingError if another has it, UsageError if runs cannot be written there.
        """
        lock = FileLock(self.path.parent / f".{self.path.name}.lock", timeout=0)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            raise TrainingError(f"run {self.path} is being trained by another process") from None
        except OSError as error:
            raise UsageError(
                f"cannot write {self.path.parent}: {error.strerror}: set runs to another folder"
            ) from None
        try:
            yield
        finally:
            lock.release()
