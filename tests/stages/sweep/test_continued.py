"""A sweep that goes on takes the limits of the command that goes on with it, for all its trials."""

import importlib.util
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from egapipe.pipeline.config import Config, to_yaml
from egapipe.pipeline.results.experiment import Experiment, read_experiment
from egapipe.pipeline.results.runs import RunFolder
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.stages import sweep
from egapipe.stages.sweep.folder import sweep_folder
from tests.command import COMMAND
from tests.stages.extract.processes import workers_below
from tests.stages.sweep.conftest import MakeConfig

THREE = ("sweep.space={distill.lr: {grid: [0.01, 0.02, 0.03]}}", "sweep.search=grid")
# Long enough that all are under way before the first has ended.
LONG = ("sweep.scheduler=fifo", "distill.epochs=40")


class InterruptionError(Exception):
    """The driver ends, its trials with it."""


def running(experiment: Experiment) -> int:
    return experiment.counts["running"]


def interrupt(config: Config, when: Callable[[Experiment], bool]) -> None:
    """Run a sweep until something holds; its record has nothing that runs any more."""

    def watch(experiment: Experiment) -> None:
        if when(experiment):
            raise InterruptionError

    with pytest.raises(InterruptionError):
        sweep.run(config, watch=watch)
    left = read_experiment(sweep_folder(config)).experiment
    assert (left.beat, left.finished, running(left)) == (None, False, 0)


def killed(config: Config, folder: Path, when: Callable[[], object]) -> None:
    """Start a sweep by its command, and kill that as soon as something holds."""
    file = folder / "config.yaml"
    file.write_text(to_yaml(config))
    command = [*COMMAND, "sweep", "-c", str(file)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 400
    while process.poll() is None and time.monotonic() < deadline and not when():
        time.sleep(0.02)
    assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow  # each trial waits for torch in its process
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("ray_cluster")
def test_a_lower_limit_holds_back_what_was_under_way_and_a_higher_one_lets_it_run(
    small: MakeConfig,
) -> None:
    interrupt(small(*THREE, *LONG, "sweep.max_concurrent=3"), lambda s: running(s) == 3)
    seen: list[int] = []

    def one_has_ended(experiment: Experiment) -> bool:
        seen.append(running(experiment))
        return any(cell.over for cell in experiment.cells) and running(experiment) == 1

    interrupt(small(*THREE, *LONG, "sweep.max_concurrent=1"), one_has_ended)
    assert max(seen) == 1
    report = sweep.run(small(*THREE, *LONG))
    assert report.concurrent == 2
    assert [trial.status for trial in report.trials] == ["finished"] * 3
    for trial in report.trials:
        epochs = [line["epoch"] for line in read_metrics(RunFolder(trial.run))]
        assert epochs == list(range(40))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="optuna is not installed")
def test_a_search_that_was_interrupted_grows_within_a_lower_limit(small: MakeConfig) -> None:
    sets = ("sweep.space={distill.lr: {uniform: [0.001, 0.01]}}", "sweep.search=optuna", *LONG)
    first = small(*sets, "sweep.samples=2", "sweep.max_concurrent=2")
    asked: list[dict[int, float]] = [{}]

    def both(found: Experiment) -> bool:
        rates = {c.number: found.setting(c.setting).changes["distill.lr"] for c in found.cells}
        asked[0] = {number: float(str(rate)) for number, rate in rates.items()}
        return running(found) == 2

    interrupt(first, both)
    report = sweep.run(small(*sets, "sweep.samples=4", "sweep.max_concurrent=1"))
    assert report.folder == sweep_folder(first).path
    assert report.concurrent == 1
    assert [trial.status for trial in report.trials] == ["finished"] * 4
    rates = {trial.number: trial.changes["distill.lr"] for trial in report.trials}
    assert asked[0].items() <= rates.items()
    assert len(set(rates.values())) == 4
    kept = [(trial.run / "summary.json").stat().st_mtime_ns for trial in report.trials]
    more = sweep.run(small(*sets, "sweep.samples=5"))
    assert [trial.number for trial in more.trials] == list(range(5))
    assert [(t.run / "summary.json").stat().st_mtime_ns for t in more.trials[:4]] == kept


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(("before", "now", "end"), [(0, 1, "finished"), (1, 0, "failed")])
def test_as_many_deaths_are_borne_as_is_said_now(
    small: MakeConfig, before: int, now: int, end: str
) -> None:
    """Of two trials, so that the sweep has a result without the one that is killed."""
    two = ("sweep.space={distill.lr: {grid: [0.01, 0.02]}}", "sweep.search=grid", *LONG)
    one = (*two, "sweep.max_concurrent=1")
    interrupt(small(*one, f"sweep.max_failures={before}"), lambda found: found.cells[0].epoch >= 1)
    killed: list[int] = []

    def kill(found: Experiment) -> None:
        workers = workers_below(os.getpid(), "ImplicitFunc")
        if not killed and found.cells[0].state == "running" and len(workers) == 1:
            killed.append(workers[0].pid)
            workers[0].kill()

    report = sweep.run(small(*one, f"sweep.max_failures={now}"), watch=kill)
    assert len(killed) == 1
    assert [trial.status for trial in report.trials] == [end, "finished"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("ray_cluster")
def test_a_larger_cluster_is_used_when_a_killed_sweep_goes_on(
    small: MakeConfig, tmp_path: Path
) -> None:
    config = small(*THREE, *LONG, "cluster.cpus=1")
    killed(config, tmp_path, lambda: list(sweep_folder(config).trials.glob("0*/metrics.jsonl")))
    report = sweep.run(config)
    assert report.concurrent > 1
    assert [trial.status for trial in report.trials] == ["finished"] * 3


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("ray_cluster")
def test_a_population_that_is_killed_goes_on(small: MakeConfig, tmp_path: Path) -> None:
    """After the look at which one has taken the other's place."""
    config = small(
        "sweep.space={distill.lr: {choice: [1.0e-7, 0.05]}}",
        "sweep.samples=8",
        "sweep.scheduler={kind: pbt, interval_epochs: 2, quantile: 0.5, resample: 0.0}",
        "distill.epochs=12",
    )
    runs = [RunFolder(sweep_folder(config).trials / f"{number:04d}") for number in range(2)]
    killed(config, tmp_path, lambda: all(len(read_metrics(run)) >= 3 for run in runs))
    before = [read_metrics(run)[:2] for run in runs]
    report = sweep.run(config)
    assert [trial.run for trial in report.trials] == [run.path for run in runs]
    assert [trial.status for trial in report.trials] == ["finished"] * 2
    for trial, run, first in zip(report.trials, runs, before, strict=True):
        lines = read_metrics(run)
        # What it skips, the one whose place it has taken has trained.
        epochs = [line["epoch"] for line in lines]
        assert epochs == sorted(set(epochs))
        assert epochs[-1] == 11
        assert lines[:2] == first
        assert run.config().distill.lr == trial.changes["distill.lr"]
        assert trial.value == lines[-1]["test/top1"]
    # The one that did not learn could not have got there by itself.
    assert min(trial.value or 0.0 for trial in report.trials) > 25
