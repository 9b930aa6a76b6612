"""Runs in MLflow: an experiment's with those of its trainings below it."""

import os
import time
from collections.abc import Mapping
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from egapipe.pipeline.config.track import MlflowTracking
from egapipe.pipeline.locations.urls import url_of
from egapipe.stages.track.client import Entry, Status

KEY = "egapipe.key"
_STATUS: dict[Status, str] = {
    "done": "FINISHED",
    "stopped": "KILLED",
    "failed": "FAILED",
    "running": "RUNNING",
}
# What MLflow takes in one request, and of one value.
_PARAMS, _LONGEST = 100, 500
# A server that is gone is given up in seconds: nothing is lost, it is told later.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "20", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}


class OnMlflow:
    """A tracking server or a store of MLflow."""

    def __init__(self, options: MlflowTracking, name: str, folder: Path) -> None:
        for variable, value in _PATIENCE.items():
            os.environ.setdefault(variable, value)
        uri = url_of(options.uri) if options.uri else os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            folder.mkdir(parents=True, exist_ok=True)
        self._client = MlflowClient(uri or f"sqlite:///{folder / 'mlflow.db'}")
        name = options.experiment or name
        known = self._client.get_experiment_by_name(name)
        # Files of a run stay in its folder; MLflow would else make one where the command runs.
        place = None if uri else (folder / "mlflow").absolute().as_uri()
        self._experiment = (
            known.experiment_id if known else self._client.create_experiment(name, place)
        )
        self._runs: dict[str, str] = {}

    def begin(self, entry: Entry, started: float | None) -> int:
        """Begin a run, or find it by its key; how many epochs of it are there."""
        found = self._client.search_runs(
            [self._experiment], f"tags.`{KEY}` = '{entry.key}'", max_results=1
        )
        if found:
            run = found[0]
            self._runs[entry.key] = run.info.run_id
            self._client.update_run(run.info.run_id, "RUNNING")
            return int(run.data.metrics.get("epoch", -1)) + 1
        tags = {**entry.tags, KEY: entry.key}
        if entry.parent is not None:
            tags["mlflow.parentRunId"] = self._runs[entry.parent]
        at = int(1000 * (time.time() if started is None else started))
        run = self._client.create_run(self._experiment, at, tags, entry.name)
        self._runs[entry.key] = run.info.run_id
        params = [Param(k, str(value)[:_LONGEST]) for k, value in entry.settings.items()]
        for first in range(0, len(params), _PARAMS):
            self._client.log_batch(run.info.run_id, params=params[first : first + _PARAMS])
        return 0

    def log(self, key: str, epoch: int, metrics: Mapping[str, float], when: float) -> None:
        """Send an epoch; its number comes with it, so that it is known what is there."""
        at = int(1000 * when)
        points = [Metric(name, float(value), at, epoch) for name, value in metrics.items()]
        self._client.log_batch(self._runs[key], [*points, Metric("epoch", epoch, at, epoch)])

    def attach(self, key: str, file: Path) -> None:
        """Send a file as an artifact."""
        self._client.log_artifact(self._runs[key], str(file))

    def end(self, key: str, status: Status, when: float | None) -> None:
        """End a run."""
        at = int(1000 * (time.time() if when is None else when))
        self._client.set_terminated(self._runs[key], _STATUS[status], at)
