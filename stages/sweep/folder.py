"""What a sweep leaves behind.

config.yaml     the resolved configuration
trials/         a run folder a trial: `0007-ega.weight=0.31`
trials.parquet  a row a trial: settings, status, metrics of its last epoch, run folder
trials.csv      the same
best.yaml       configuration of the best trial, for `egapipe distill -c`
summary.json    results; its presence means the sweep is finished
ray/            Ray Tune's own state, with which a killed sweep continues
"""

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from egapipe.pipeline.config import Config, to_yaml
from egapipe.pipeline.disk.files import replace_file
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.locations.remote import is_remote
from egapipe.pipeline.locations.urls import absolute_url, path_of
from egapipe.pipeline.results.durable import durable
from egapipe.pipeline.results.identity import has_places
from egapipe.pipeline.results.labels import short_name, short_value
from egapipe.pipeline.results.runs import RunFolder, older_folder, run_identity

ERROR = "error.json"
# What changes neither the trials nor which of them end early.
_LAUNCH = {"cpus_per_trial", "gpus_per_trial", "max_concurrent", "max_failures", "track"}
_LABEL = re.compile(r"[^A-Za-z0-9._=+,-]+")
_LONGEST_LABEL = 80


def sweep_identity(config: Config, *, samples: bool = False) -> str:
    """Eight hex digits of everything that decides which trials there are and what they learn.

    How many draws there are only decides where they end: a sweep can grow. samples: with them, as
    an older egapipe had it.
    """
    from egapipe.stages.distill.folder import deciding_workers

    launch = _LAUNCH if samples else {*_LAUNCH, "samples"}
    sweep = {key: value for key, value in durable(config.sweep).items() if key not in launch}
    content = json.dumps([run_identity(config, deciding_workers(config)), sweep], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:8]


def sweep_folder(config: Config) -> "SweepFolder":
    """The folder of a sweep: the same configuration finds the same folder again.

    Also one of an older egapipe, if it has as many samples or names other places of its images.
    """
    if is_remote(absolute_url(config.runs)):
        raise UsageError(
            f"runs is {config.runs}: the trials of a sweep are on a file system that all nodes "
            "share, set runs to a folder of it (distill and compare take URLs)"
        )
    # Trials may have another working folder.
    parent = (path_of(config.runs) / config.name).absolute()
    identity = sweep_identity(config)
    folder = parent / f"sweep-{identity}"
    if folder.exists():
        return SweepFolder(folder)
    older = parent / f"sweep-{sweep_identity(config, samples=True)}"
    found = older if older.exists() else None
    if found is None and has_places(config):
        found = older_folder(parent, "sweep-", identity, sweep_identity)
    return SweepFolder(found or folder)


@dataclass(frozen=True)
class SweepFolder(RunFolder):
    """Paths and small files of one sweep."""

    @property
    def trials(self) -> Path:
        """Folder of the trials' run folders; `tensorboard --logdir` of it shows them all."""
        return self.path / "trials"

    @property
    def ray(self) -> Path:
        """Ray Tune's own state."""
        return self.path / "ray"

    def start(self, config: Config) -> None:
        """Write what the sweep is made from; it is unfinished from now on."""
        self.trials.mkdir(parents=True, exist_ok=True)
        replace_file(self.path / "config.yaml", to_yaml(config).encode())
        (self.path / "summary.json").unlink(missing_ok=True)

    def forget_errors(self) -> None:
        """Let trials that failed be tried again."""
        for error in self.trials.glob(f"*/{ERROR}"):
            error.unlink()

    def trial(self, number: int, changes: Mapping[str, Any] | None) -> RunFolder:
        """The run folder of a trial; changes: its settings, None where they do not stay."""
        label = f"-{label_of(changes)}" if changes else ""
        return RunFolder(self.trials / f"{number:04d}{label}")

    def remove_others(self, number: int, run: RunFolder, config: Config) -> None:
        """Remove what a trial of this number with other settings left; notes beside it stay.

        A searcher may propose something else after the sweep's driver was killed. config: the
        trial's; a label is short, so two settings may have one.
        """
        for other in self.trials.iterdir():
            mine = other == run.path and not _is_of_another(run, config)
            if other.name.partition("-")[0] == f"{number:04d}" and not mine and other.is_dir():
                RunFolder(other).clear()
                # Not empty: the user has put something there.
                with suppress(OSError):
                    other.rmdir()


def _is_of_another(run: RunFolder, config: Config) -> bool:
    """Whether a trial's folder, or the error in it, is of other settings than these."""
    identity = run_identity(config)
    if (run.path / "config.yaml").is_file():
        return run_identity(run.config()) != identity
    if (run.path / ERROR).is_file():
        return bool(run.read_json(ERROR).get("identity", identity) != identity)
    return False


def label_of(changes: Mapping[str, Any]) -> str:
    """`lr=0.05,ega.weight=0.31`, fit for the name of a folder."""
    parts = (f"{short_name(path)}={short_value(value)}" for path, value in changes.items())
    return _LABEL.sub("_", ",".join(parts))[:_LONGEST_LABEL]
