"""Runs in Weights & Biases: a group an experiment, in which one run is the experiment itself."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

from egapipe.pipeline.config.track import WandbTracking
from egapipe.stages.track.client import Entry, Status


class OnWandb:
    """A project of Weights & Biases, or files for `wandb sync`."""

    def __init__(self, options: WandbTracking, name: str, folder: Path) -> None:
        self._options, self._project, self._folder = options, options.project or name, folder
        folder.mkdir(parents=True, exist_ok=True)
        self._runs: dict[str, Any] = {}
        if options.mode == "online":
            # Asks the server who we are.
            wandb.Api(timeout=20).viewer  # noqa: B018

    def begin(self, entry: Entry, started: float | None) -> int:
        """Begin a run, or go on with it; how many epochs of it are there."""
        run = wandb.init(
            project=self._project,
            id=hashlib.sha256(entry.key.encode()).hexdigest()[:16],
            resume="allow" if self._options.mode == "online" else None,
            group=entry.parent or entry.key,
            job_type="training" if entry.parent else "experiment",
            name=entry.name,
            mode=self._options.mode,
            dir=str(self._folder),
            config=dict(entry.settings),
            tags=[value[:64] for value in entry.tags.values()],
            settings=wandb.Settings(silent=True, disable_git=True),
            reinit="create_new",
        )
        self._runs[entry.key] = run
        return int(run.step or 0)

    def log(self, key: str, epoch: int, metrics: Mapping[str, float], when: float) -> None:
        """Send an epoch."""
        self._runs[key].log({**metrics, "epoch": epoch, "_timestamp": when}, step=epoch)

    def attach(self, key: str, file: Path) -> None:
        """Send a file."""
        artifact = wandb.Artifact(file.stem, type="report")
        artifact.add_file(str(file))
        self._runs[key].log_artifact(artifact)

    def end(self, key: str, status: Status, when: float | None) -> None:
        """End a run; what failed says so by its exit code."""
        run = self._runs.pop(key)
        run.summary["status"] = status
        run.finish(exit_code=int(status == "failed"))
