"""A sweep in an object store: killed, and continued on a machine that has nothing of it."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from egapipe.pipeline.config import to_yaml
from egapipe.pipeline.disk.paths import cache_dir
from egapipe.pipeline.results.experiment import read_experiment
from egapipe.pipeline.results.runs import open_run
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.stages import sweep
from egapipe.stages.sweep.folder import sweep_folder
from tests.command import COMMAND
from tests.objectstore import S3, s3, s3_server
from tests.stages.sweep.conftest import MakeConfig

__all__ = ["s3", "s3_server"]

SETS = (
    "sweep.space={distill.epochs: {grid: [2, 30]}}",
    "sweep.search=grid",
    "sweep.scheduler=fifo",
    "sweep.max_concurrent=1",
    "distill.objective={}",
)


def finished(s3: S3) -> set[str]:
    """Keys of what finished trials have come to."""
    return {key for key in s3.objects() if "/trials/" in key and key.endswith("/summary.json")}


@pytest.mark.slow  # two starts of Ray, and of torch in trials' processes
@pytest.mark.timeout(900)
def test_a_killed_sweep_goes_on_from_the_store(
    small: MakeConfig, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EGAPIPE_CACHE", str(tmp_path / "cache"))
    config = small(*SETS, f"runs={s3.url('runs')}")
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(config))
    command = [*COMMAND, "sweep", "-c", str(file)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    second = "trials/0001-epochs=30/metrics.jsonl"
    while process.poll() is None and time.monotonic() < deadline:
        if finished(s3) and any(key.endswith(second) for key in s3.objects()):
            break
        time.sleep(0.2)
    assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    [first] = finished(s3)
    before = s3.objects()[first]
    shutil.rmtree(cache_dir() / "runs", ignore_errors=True)
    end = subprocess.run(command, capture_output=True, text=True, check=False)
    assert end.returncode == 0, end.stderr
    assert s3.objects()[first] == before
    assert len(finished(s3)) == 2
    # Read here, where nothing was trained; nothing is trained now either.
    report = sweep.run(config)
    assert report.finished_before
    assert [trial.status for trial in report.trials] == ["finished"] * 2
    for trial, epochs in zip(report.trials, (2, 30), strict=True):
        assert str(trial.run).startswith(s3.url("runs/quickstart/sweep-"))
        lines = [line["epoch"] for line in read_metrics(open_run(trial.run))]
        assert lines == list(range(epochs))
    experiment = read_experiment(str(sweep_folder(config).url)).experiment
    assert (experiment.finished, experiment.beat) == (True, None)
    names = {key.rpartition("/")[2] for key in s3.objects()}
    assert {"experiment.json", "best.yaml", "trials.parquet", "summary.json"} <= names
    # Of Ray Tune and of leases nothing stays.
    assert not any("/ray/" in key or "/lease/" in key for key in s3.objects())
