"""The run folder: what one training leaves behind, and where.

config.yaml      the resolved configuration
store.json       identity of the features it learned from
metrics.jsonl    one line an epoch
tensorboard/     the same as event files
checkpoints/     weights and state of the last and the best epoch
summary.json     results; its presence means the run is finished
evaluation.json  what `egapipe evaluate` measured, where it ran; summary.json then has it as well
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from egapipe.pipeline.config import Config, load_config, to_yaml
from egapipe.pipeline.errors import TrainingError, UsageError
from egapipe.pipeline.files import read_json_object, replace_file

# What does not change the trained weights does not change the run: it may resume with other values.
_LAUNCH = {"runs", "extract", "compare", "sweep", "cluster"}
_LAUNCH_DISTILL = {
    "workers",
    "max_failures",
    "threads",
    "channels_last",
    "compile",
    "stream_threads",
    "data",
    "resident_bytes",
    "checkpoint_epochs",
    "checkpoint_steps",
}

# The first is what says that a run is finished, so it goes first.
_LEFT = (
    *("summary.json", "evaluation.json", "metrics.jsonl", "checkpoints", "tensorboard"),
    *("model.json", "store.json", "config.yaml", "error.json", "results.json", "refusal.json"),
    *("ray", "trials", "trials.parquet", "trials.csv", "best.yaml", "tracked.json"),
)


def run_identity(config: Config) -> str:
    """Eight hex digits of everything that decides what is learned."""
    tree = config.model_dump(mode="json", exclude=_LAUNCH)
    tree["distill"] = {k: v for k, v in tree["distill"].items() if k not in _LAUNCH_DISTILL}
    tree["store"] = {"dtype": tree["store"]["dtype"]}
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:8]


def run_folder(config: Config) -> "RunFolder":
    """The folder of a configuration: the same configuration finds the same folder again."""
    terms = config.distill.objective.model_dump(exclude_none=True)
    label = "+".join(terms) or "ce"
    name = f"{config.distill.student.name}-{label}-seed{config.distill.seed}-{run_identity(config)}"
    return RunFolder(Path(config.runs) / config.name / name.replace(":", ".").replace("/", "."))


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
        return load_config(str(self.path / "config.yaml"), trust_remote_code=True)

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
