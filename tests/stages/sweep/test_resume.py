"""The driver of a sweep is killed: what was finished is kept, what was running goes on."""

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from egapipe.pipeline.config import Config, load_config, to_yaml
from egapipe.pipeline.results.experiment import Experiment
from egapipe.pipeline.results.runs import RunFolder
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.stages import distill, sweep
from egapipe.stages.sweep.folder import SweepFolder, sweep_folder
from egapipe.stages.sweep.report import read_report
from tests.command import COMMAND
from tests.stages.distill.test_training import assert_same_weights
from tests.stages.extract.processes import workers_below
from tests.stages.sweep.conftest import MakeConfig

# A short trial, and others that are under way when it is finished.
SETS = (
    "sweep.space={distill.epochs: {grid: [2, 60, 61]}}",
    "sweep.search=grid",
    "sweep.scheduler=fifo",
    "sweep.max_concurrent=2",
    "cluster.cpus=8",
)


def runs(folder: SweepFolder) -> list[RunFolder]:
    return [RunFolder(path) for path in sorted(folder.trials.glob("0*"))]


def kill_in_the_middle(config: Config, file: Path) -> None:
    """SIGKILL the command when a trial is finished and another has begun."""
    folder = sweep_folder(config)
    command = [*COMMAND, "sweep", "-c", str(file)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while process.poll() is None and time.monotonic() < deadline:
        trials = runs(folder)
        begun = [run for run in trials if not run.finished and len(read_metrics(run)) >= 3]
        if begun and any(run.finished for run in trials):
            break
        time.sleep(0.02)
    assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow  # a second start of torch, and the training itself three times
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("ray_cluster")
def test_a_trial_that_loses_its_process_goes_on(small: MakeConfig, tmp_path: Path) -> None:
    config = small("sweep.space={distill.epochs: {grid: [40]}}", "sweep.search=grid")
    killed: dict[int, list[dict[str, Any]]] = {}

    def kill_once(experiment: Experiment) -> None:
        workers = workers_below(os.getpid(), "ImplicitFunc")
        # That of an earlier test may be there for another moment.
        if experiment.cells[0].epoch >= 3 and len(workers) == 1 and not killed:
            os.kill(workers[0].pid, signal.SIGKILL)
            run = sweep_folder(config).beside(str(experiment.cells[0].run))
            killed[workers[0].pid] = read_metrics(run)

    report = sweep.run(config, watch=kill_once)
    [before] = killed.values()
    assert report.best is not None
    assert report.best.epochs == 40
    assert read_metrics(RunFolder(report.best.run))[: len(before) - 1] == before[:-1]
    again = load_config(str(report.best_config), [f"runs={tmp_path / 'again'}"])
    assert_same_weights(distill.run(again).run, report.best.run)


@pytest.mark.slow  # three starts of Ray and of torch in trials' processes
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("ray_cluster")
def test_a_killed_sweep_goes_on_where_it_was(small: MakeConfig, tmp_path: Path) -> None:
    undisturbed = sweep.run(small(*SETS, f"runs={tmp_path / 'undisturbed'}"))
    config = small(*SETS)
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(config))
    kill_in_the_middle(config, file)
    folder = sweep_folder(config)
    assert not folder.finished
    finished = {
        run.path: (run.path / "summary.json").stat().st_mtime_ns
        for run in runs(folder)
        if run.finished
    }
    begun = {run.path: read_metrics(run) for run in runs(folder) if not run.finished}
    end = subprocess.run(
        [*COMMAND, "sweep", "-c", str(file)], capture_output=True, text=True, check=False
    )
    assert end.returncode == 0, end.stderr
    assert "Traceback" not in end.stderr
    assert finished == {path: (path / "summary.json").stat().st_mtime_ns for path in finished}
    for path, metrics in begun.items():
        # The last line may lack its checkpoint. Seconds are never the same twice.
        kept = metrics[:-1]
        assert read_metrics(RunFolder(path))[: len(kept)] == kept
    report = read_report(folder)
    assert [trial.status for trial in report.trials] == ["finished"] * 3
    for one, two in zip(undisturbed.trials, report.trials, strict=True):
        assert one.changes == two.changes
        assert_same_weights(one.run, two.run)
