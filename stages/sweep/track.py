"""Trials in MLflow or Weights & Biases, beside their TensorBoard runs.

Written when the sweep is over, from the trials' run folders: each trial is there with all of its
epochs, however often the sweep was interrupted.
"""

import hashlib
import importlib.util
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

from egapipe.pipeline.config import Config
from egapipe.pipeline.config.sweep import MlflowTracking, WandbTracking
from egapipe.pipeline.errors import UsageError, one_line
from egapipe.pipeline.locations.urls import url_of
from egapipe.pipeline.results.durable import durable
from egapipe.pipeline.results.labels import short_name
from egapipe.pipeline.results.runs import open_run
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.stages.sweep.folder import SweepFolder
from egapipe.stages.sweep.report import SweepReport, SweepTrial

# MLflow takes so many metrics in one request.
_BATCH = 1000
TRACKED = "tracked.json"
_log = logging.getLogger(__name__)
_MLFLOW_STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


def check_tracking(config: Config) -> None:
    """Raise UsageError if the library that `sweep.track` names is not installed."""
    track = config.sweep.track
    if track is not None and importlib.util.find_spec(track.kind) is None:
        raise UsageError(
            f"sweep.track is {track.kind}, which is not installed: "
            f"pip install 'egapipe[{track.kind}]', or leave sweep.track empty"
        )


def track_once(config: Config, folder: SweepFolder, report: SweepReport) -> bool:
    """`track`, unless this sweep is there already; whether it is there now.

    A tracker that fails gates nothing: it is said in one line, and the same command tries again.
    """
    options = config.sweep.track
    if options is None:
        return False
    # Where to is part of it: another tracker has not been told yet.
    told = mark(options)
    marker = folder.path / TRACKED
    if marker.is_file() and folder.read_json(TRACKED).get("told") == told:
        return True
    try:
        track(config, folder, report)
    except Exception as error:  # of two clients and their servers, which have dozens of types
        _log.warning(
            "the sweep is finished, but not in %s (%s): run the same command to try again",
            options.kind,
            one_line(error),
        )
        return False
    folder.write_json(TRACKED, {"told": told})
    return True


def mark(options: MlflowTracking | WandbTracking) -> str:
    """What tells one tracker from another: SHA-256 of where it is, hex."""
    text = json.dumps(durable(options), separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def track(config: Config, folder: SweepFolder, report: SweepReport) -> None:
    """Write every trial where `sweep.track` says."""
    options = config.sweep.track
    if isinstance(options, MlflowTracking):
        _mlflow(config, options, folder, report)
    elif isinstance(options, WandbTracking):
        _wandb(config, options, folder, report)


def _mlflow(
    config: Config, options: MlflowTracking, folder: SweepFolder, report: SweepReport
) -> None:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

    uri = url_of(options.uri) if options.uri else os.environ.get("MLFLOW_TRACKING_URI")
    client = MlflowClient(uri or f"sqlite:///{folder.path / 'mlflow.db'}")
    name = options.experiment or config.name
    known = client.get_experiment_by_name(name)
    # Files of a run stay in its run folder; MLflow would else make a folder where the command runs.
    place = None if uri else (folder.path / "mlflow").as_uri()
    experiment = known.experiment_id if known else client.create_experiment(name, place)
    now = int(time.time() * 1000)
    for trial in report.trials:
        tags = {"sweep": folder.path.name, "run": str(trial.run)}
        run = client.create_run(
            experiment, tags=tags, run_name=open_run(trial.run).path.name
        ).info.run_id
        params = [Param(path, str(value)) for path, value in trial.changes.items()]
        client.log_batch(run, params=params)
        points = [
            Metric(key, value, now, epoch)
            for epoch, metrics in _epochs(trial)
            for key, value in metrics.items()
        ]
        for start in range(0, len(points), _BATCH):
            client.log_batch(run, metrics=points[start : start + _BATCH])
        client.set_terminated(run, _MLFLOW_STATUS[trial.status])


def _wandb(
    config: Config, options: WandbTracking, folder: SweepFolder, report: SweepReport
) -> None:
    import wandb

    for trial in report.trials:
        run = wandb.init(
            project=options.project or config.name,
            group=folder.path.name,
            name=open_run(trial.run).path.name,
            mode=options.mode,
            dir=str(folder.path),
            config={short_name(path): value for path, value in trial.changes.items()},
            tags=[trial.status],
            settings=wandb.Settings(silent=True, disable_git=True),
            reinit="finish_previous",
        )
        for epoch, metrics in _epochs(trial):
            run.log(dict(metrics), step=epoch)
        run.finish(exit_code=int(trial.status == "failed"))


def _epochs(trial: SweepTrial) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for line in read_metrics(open_run(trial.run)):
        yield line["epoch"], {name: v for name, v in line.items() if name != "epoch"}
