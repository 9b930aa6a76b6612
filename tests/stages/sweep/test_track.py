"""Trials in MLflow and Weights & Biases, from the run folders, without any server."""

import hashlib
import importlib.util
import json
from pathlib import Path

import pytest

from egapipe.pipeline.config import Config, load_config
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.results.durable import FORMAT_1, durable
from egapipe.stages.sweep.folder import SweepFolder
from egapipe.stages.sweep.report import SweepReport, SweepTrial
from egapipe.stages.sweep.track import check_tracking, mark, track, track_once

LR = "distill.lr"


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def config(tracking: str) -> Config:
    return load_config("quickstart", [f"sweep.track={tracking}"])


@pytest.fixture
def report(tmp_path: Path) -> SweepReport:
    """A finished trial of three epochs, and one that was ended after two."""
    folder = SweepFolder(tmp_path / "sweep-1")
    trials = []
    for number, (status, epochs) in enumerate([("finished", 3), ("stopped", 2)]):
        changes = {LR: 0.1 * (number + 1)}
        run = folder.trial(number, changes)
        run.path.mkdir(parents=True)
        epoch_lines = [
            {"epoch": epoch, "test/top1": 50.0 + epoch, "lr": 0.1} for epoch in range(epochs)
        ]
        run.metrics.write_text("".join(json.dumps(line) + "\n" for line in epoch_lines))
        trials.append(SweepTrial(number, changes, status, epochs, 50.0, run.path, None))
    return SweepReport(folder.path, trials, trials[0], "test/top1", "max", 1.0, 2)


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_library_that_is_missing_is_told_first(name: str) -> None:
    if installed(name):
        check_tracking(config(f"{{kind: {name}}}"))
        return
    with pytest.raises(UsageError, match=rf"pip install 'egapipe\[{name}\]'"):
        check_tracking(config(f"{{kind: {name}}}"))


@pytest.mark.skipif(not installed("mlflow"), reason="mlflow is not installed")
@pytest.mark.parametrize("place", ["given", "sweep-1"])
def test_every_trial_is_a_run_of_mlflow(
    report: SweepReport, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / place).mkdir(exist_ok=True)
    uri = f"sqlite:///{tmp_path / place / 'mlflow.db'}"
    # Without one, the database is in the sweep's folder.
    given = f", uri: '{uri}'" if place == "given" else ""
    track(config(f"{{kind: mlflow{given}}}"), SweepFolder(report.folder), report)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("quickstart")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert runs.keys() == {trial.run.name for trial in report.trials}
    for trial in report.trials:
        run = runs[trial.run.name]
        assert run.data.params == {LR: str(trial.changes[LR])}
        points = client.get_metric_history(run.info.run_id, "test/top1")
        assert [(p.step, p.value) for p in points] == [(e, 50.0 + e) for e in range(trial.epochs)]
        assert run.info.status == {"finished": "FINISHED", "stopped": "KILLED"}[trial.status]


@pytest.mark.skipif(not installed("wandb"), reason="wandb is not installed")
def test_every_trial_is_a_run_of_wandb(report: SweepReport) -> None:
    """Offline, where a run is a file to send later."""
    track(config("{kind: wandb, mode: offline}"), SweepFolder(report.folder), report)
    files = list(report.folder.glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == len(report.trials)
    assert all(file.stat().st_size > 0 for file in files)


def test_a_tracker_that_fails_gates_nothing(
    report: SweepReport, caplog: pytest.LogCaptureFixture
) -> None:
    """No such tracker answers, nor is its library everywhere installed."""
    nowhere = config("{kind: mlflow, uri: 'nosuch://place'}")
    folder = SweepFolder(report.folder)
    assert not track_once(nowhere, folder, report)
    (record,) = (r for r in caplog.records if "run the same command" in r.getMessage())
    assert len(record.getMessage().splitlines()) == 1
    assert not (folder.path / "tracked.json").exists()


@pytest.mark.parametrize("track", ["{kind: mlflow, uri: 'sqlite:///ä.db'}", "{kind: wandb}"])
def test_what_was_told_is_known_by_what_format_1_knew(track: str) -> None:
    """A later option at its default must not tell a tracker of a sweep again."""
    options = config(track).sweep.track
    assert options is not None
    assert mark(options) == hashlib.sha256(options.model_dump_json().encode()).hexdigest()
    assert set(durable(options)) == set(FORMAT_1[type(options).__name__].split())
