"""Trainings in MLflow and W&B: live, afterwards, and with a tracker that goes down."""

import importlib.util
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from egapipe.pipeline.config import Config, load_config
from egapipe.pipeline.config.track import MlflowTracking, WandbTracking
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.results.runs import RunFolder
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.stages import compare, distill
from egapipe.stages.compare.command import table_lines
from egapipe.stages.track import send
from egapipe.stages.track.client import connect
from egapipe.stages.track.entries import flattened
from tests.command import invoke
from tests.golden_copy import golden

__all__ = ["golden"]

mlflow_there = importlib.util.find_spec("mlflow") is not None
needs_mlflow = pytest.mark.skipif(not mlflow_there, reason="mlflow is not installed")
needs_wandb = pytest.mark.skipif(
    importlib.util.find_spec("wandb") is None, reason="wandb is not installed"
)
pytestmark = pytest.mark.usefixtures("golden")
VARIANTS = "compare.variants={ce: {distill.objective: {}}, wild: {distill.lr: 1.0e+30}}"


def configured(folder: Path, *sets: str, uri: str | None = None) -> Config:
    place = uri or f"sqlite:///{folder / 'mlflow.db'}"
    own = [f"track={{kind: mlflow, uri: '{place}'}}", f"runs={folder / 'runs'}"]
    return load_config("golden.yaml", [*own, *sets])


def runs_of(uri: str) -> dict[str, Any]:
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    [experiment] = [e for e in client.search_experiments() if e.name == "golden"]
    runs = client.search_runs([experiment.experiment_id])
    return {str(run.info.run_name): run for run in runs}


def points(uri: str, run: Any, name: str) -> list[Any]:
    from mlflow import MlflowClient

    return list(MlflowClient(uri).get_metric_history(run.info.run_id, name))


@needs_mlflow
def test_a_training_is_there_with_settings_times_and_its_report(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    uri, before = f"sqlite:///{tmp_path / 'mlflow.db'}", time.time()
    done = distill.run(configured(tmp_path))
    [run] = runs_of(uri).values()
    assert run.info.run_name == done.run.name
    assert run.info.status == "FINISHED"
    settings = flattened(RunFolder(done.run).config().model_dump(mode="json"))
    assert run.data.params.keys() == settings.keys()
    assert run.data.params["distill.lr"] == "0.01"
    lines = read_metrics(RunFolder(done.run))
    for name in ("train/loss", "test/top1", "lr"):
        found = points(uri, run, name)
        assert [(p.step, p.value) for p in found] == [(x["epoch"], x[name]) for x in lines]
        assert all(1000 * before - 1000 < p.timestamp <= 1000 * time.time() for p in found)
    files = {file.path for file in MlflowClient(uri).list_artifacts(run.info.run_id)}
    assert files == {"report.html"}
    # The same command again tells nothing twice.
    distill.run(configured(tmp_path))
    assert len(points(uri, run, "lr")) == len(lines)


@needs_mlflow
def test_an_experiment_has_its_trainings_below_it(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    report = compare.run(configured(tmp_path, VARIANTS, "compare.seeds=[0, 1]"))
    runs = runs_of(uri)
    parent = runs.pop(Path(report.folder).name)
    assert parent.info.status == "FINISHED"
    assert runs.keys() == {f"{v} seed {s}" for v in ("ce", "wild") for s in (0, 1)}
    for name, run in runs.items():
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        failed = name.startswith("wild")
        assert run.info.status == ("FAILED" if failed else "FINISHED")
        assert len(points(uri, run, "lr")) == (0 if failed else 2)


@needs_mlflow
def test_what_was_finished_before_is_sent_once(tmp_path: Path) -> None:
    """With the times of its epochs, as TensorBoard has them."""
    config = load_config("golden.yaml", [f"runs={tmp_path}", VARIANTS, "compare.seeds=[0]"])
    before = time.time()
    report = compare.run(config)
    after = time.time()
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    for _ in range(2):
        sent = invoke("track", str(report.folder), "--to", "mlflow", "--uri", uri)
        assert sent.exit_code == 0, sent.output
        assert "sent 2 trainings" in sent.output
    runs = runs_of(uri)
    assert len(runs) == 3
    found = points(uri, runs["ce seed 0"], "train/loss")
    assert [point.step for point in found] == [0, 1]
    assert all(1000 * before - 1 <= point.timestamp <= 1000 * after + 1 for point in found)


def test_where_to_must_be_said(tmp_path: Path) -> None:
    done = distill.run(load_config("golden.yaml", [f"runs={tmp_path}"]))
    with pytest.raises(UsageError, match="give --to mlflow or --to wandb"):
        send(done.run)


@needs_mlflow
def test_a_tracker_that_does_not_answer_is_told_before_the_first_training(tmp_path: Path) -> None:
    config = configured(tmp_path, uri="nosuch://place")
    with pytest.raises(UsageError, match="does not answer") as raised:
        distill.run(config)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.glob("runs/*/*/metrics.jsonl"))


@pytest.mark.parametrize("options", [MlflowTracking(kind="mlflow"), WandbTracking(kind="wandb")])
def test_a_library_that_is_missing_is_told_first(
    options: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=rf"pip install 'egapipe\[{options.kind}\]'"):
        connect(options, "x", tmp_path)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """A tracking server of MLflow on this machine: its address and process."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = f"sqlite:///{tmp_path / 'server.db'}"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--no-serve-artifacts", "--default-artifact-root", str(tmp_path / "artifacts")]
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    uri = f"http://127.0.0.1:{port}"
    try:
        _wait(uri, process)
        yield uri, process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 9)
        process.wait()


def _wait(uri: str, process: "subprocess.Popen[bytes]") -> None:
    import urllib.request

    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.skip("this mlflow has no server here")
        try:
            urllib.request.urlopen(f"{uri}/health", timeout=2).close()  # noqa: S310
        except OSError:
            time.sleep(0.5)
        else:
            return
    pytest.fail("the server does not answer")


@needs_mlflow
@pytest.mark.slow  # a server of MLflow takes half a minute to start
@pytest.mark.timeout(900)
def test_a_server_that_goes_down_is_a_warning_and_is_told_later(
    server: tuple[str, "subprocess.Popen[bytes]"],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    uri, process = server
    config = configured(tmp_path, VARIANTS, "compare.seeds=[0, 1]", uri=uri)
    killed: list[int] = []

    from egapipe.pipeline.terminal.progress import silent_progress

    def opened(title: str, *rest: Any, **options: Any) -> Any:
        if "seed 1" in title and not killed:
            killed.append(process.pid)
            os.killpg(process.pid, 9)
            process.wait()
        return silent_progress(title, *rest, **options)

    with caplog.at_level(logging.WARNING):
        report = compare.run(config, progress=opened)
    assert killed
    assert any("ce " in line for line in table_lines(report))
    assert report.experiment.counts["done"] == 2
    said = [r.getMessage() for r in caplog.records if "is not told any more" in r.getMessage()]
    assert len(said) == 1
    assert "\n" not in said[0]
    store = f"sqlite:///{tmp_path / 'server.db'}"
    send(report.folder, MlflowTracking(kind="mlflow", uri=store))
    runs = runs_of(store)
    assert len(points(store, runs["ce seed 1"], "lr")) == 2
    assert len(points(store, runs["ce seed 0"], "lr")) == 2


@needs_wandb
@pytest.mark.slow  # each run of W&B starts a service of its own
@pytest.mark.timeout(600)
def test_every_training_is_a_run_of_wandb(tmp_path: Path) -> None:
    """Offline, where a run is a file to send later."""
    track = "track={kind: wandb, mode: offline}"
    sets = [f"runs={tmp_path}", VARIANTS, "compare.seeds=[0]", track]
    report = compare.run(load_config("golden.yaml", sets))
    files = list(Path(report.folder).glob("wandb/offline-run-*/*.wandb"))
    # The comparison's own, and two trainings.
    assert len(files) == 3
    assert all(file.stat().st_size > 0 for file in files)
