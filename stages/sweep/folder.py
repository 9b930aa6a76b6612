"""What a sweep leaves behind.

config.yaml      the resolved configuration
trials/          a run folder a trial: `0007-ega.weight=0.31`
trials.parquet   a row a trial: settings, status, metrics of its last epoch, run folder
trials.csv       the same
best.yaml        configuration of the best trial, for `egapipe distill -c`
experiment.json  every trial and where it stands, see `egapipe.pipeline.results.experiment`
summary.json     results; its presence means the sweep is finished
ray/             Ray Tune's own state, while it runs
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from egapipe.pipeline.config import Config, to_yaml
from egapipe.pipeline.disk.paths import use_cache
from egapipe.pipeline.locations.remote import is_remote
from egapipe.pipeline.locations.urls import absolute_url, path_of
from egapipe.pipeline.results.durable import durable
from egapipe.pipeline.results.identity import has_places
from egapipe.pipeline.results.labels import short_name, short_value
from egapipe.pipeline.results.runs import RunFolder, folder_at, older_folder, run_identity
from egapipe.stages.experiment.cells import consequences
from egapipe.stages.sweep.space import ends

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
    if "warm_start" in sweep:
        # Its name says what it is, wherever it lies.
        sweep["warm_start"] = str(sweep["warm_start"]).rstrip("/").rpartition("/")[2]
    parts: list[Any] = [run_identity(config, deciding_workers(config)), sweep]
    values = [(path, value) for path, d in config.sweep.space.items() for value in ends(d)]
    if any(consequences(config, {path: value}) for path, value in values):
        # Trials of before did not follow their recipe.
        parts.append("recipe")
    content = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:8]


def sweep_folder(config: Config) -> "SweepFolder":
    """The folder of a sweep: the same configuration finds the same folder again.

    Also one of an older egapipe, if it has as many samples or names other places of its images.
    """
    identity = sweep_identity(config)
    if is_remote(absolute_url(config.runs)):
        use_cache(config.store.cache_dir)
        place = folder_at(f"{config.runs.rstrip('/')}/{config.name}/sweep-{identity}")
        return SweepFolder(place.path, place.url)
    # Trials may have another working folder.
    parent = (path_of(config.runs) / config.name).absolute()
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

    def start(self, config: Config) -> None:
        """Write what the sweep is made from; it is unfinished from now on."""
        if self.url is None:
            self.trials.mkdir(parents=True, exist_ok=True)
        self.write("config.yaml", to_yaml(config).encode())
        self.discard("summary.json")

    def trial(self, number: int, changes: Mapping[str, Any] | None) -> RunFolder:
        """The run folder of a trial; changes: its settings, None where they do not stay."""
        label = f"-{label_of(changes)}" if changes else ""
        place = f"trials/{number:04d}{label}"
        if self.url is None:
            return RunFolder(self.path / place)
        return folder_at(f"{self.url}/{place}")


def label_of(changes: Mapping[str, Any]) -> str:
    """`lr=0.05,ega.weight=0.31`, fit for the name of a folder."""
    parts = (f"{short_name(path)}={short_value(value)}" for path, value in changes.items())
    return _LABEL.sub("_", ",".join(parts))[:_LONGEST_LABEL]
