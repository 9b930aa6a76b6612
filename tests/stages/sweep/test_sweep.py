"""A whole sweep on Ray Tune: one of six trials on two slots, looked at from all sides."""

import csv
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import ray
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from egapipe.pipeline.config import load_config
from egapipe.pipeline.errors import StoreError, TrainingError, UsageError
from egapipe.pipeline.results.experiment import Experiment, read_experiment
from egapipe.pipeline.results.runs import RunFolder
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.stages import distill, sweep
from egapipe.stages.sweep import SweepReport
from egapipe.stages.sweep.command import lines
from egapipe.stages.sweep.folder import sweep_folder
from tests.stages.distill.test_training import assert_same_weights
from tests.stages.sweep.conftest import MakeConfig

LR = "distill.lr"
# Two slots. The first two learn, one faster: 41 % and 26 % at the look after two epochs, where the
# second is ended if the first was there before it. Those that follow do not learn and come when one
# of the first two has ended, so they are ended too. The last one blows up.
RATES = "[0.05, 0.02, 1.0e-7, 2.0e-7, 3.0e-7, 1.0e+30]"
SETS = (
    f"sweep.space={{{LR}: {{grid: {RATES}}}}}",
    "sweep.search=grid",
    "sweep.scheduler={grace_epochs: 2}",
    "sweep.max_concurrent=2",
    "sweep.max_failures=0",
)


def cpus_free() -> float:
    return ray.available_resources().get("CPU", 0.0)


@pytest.mark.usefixtures("ray_cluster")
def test_a_sweep_from_its_space_to_its_best_trial(small: MakeConfig, tmp_path: Path) -> None:
    config = small(*SETS, f"store.cache_dir={tmp_path / 'cache'}")
    seen: list[Experiment] = []
    report = sweep.run(config, watch=seen.append)
    check_trials(report)
    check_watched(seen)
    check_slots_are_free()
    check_files(report)
    assert len(list((tmp_path / "cache").rglob("*.arrow"))) == 1
    check_the_best_trains_again(report, tmp_path)
    before = [trial.run.stat().st_mtime_ns for trial in report.trials]
    again = sweep.run(config)
    assert again.finished_before
    assert again.trials == report.trials
    assert again.best == report.best
    assert [trial.run.stat().st_mtime_ns for trial in again.trials] == before
    text = lines(config, report)
    assert text[0].split() == ["trial", "lr", "epochs", "test/top1"]
    assert text[1].split()[:2] == [str(report.ranked()[0].number), "0.05"]
    assert f"{report.count('stopped')} stopped, 1 failed; 2 at once" in "\n".join(text)


def check_trials(report: SweepReport) -> None:
    """More trials than slots: all have ended, so those that ended early left their slot."""
    assert [trial.changes[LR] for trial in report.trials] == [0.05, 0.02, 1e-7, 2e-7, 3e-7, 1e30]
    first, second, *others, failed = report.trials
    assert (first.status, first.epochs) == ("finished", 4)
    assert (second.status, second.epochs) in {("finished", 4), ("stopped", 2)}
    assert [(trial.status, trial.epochs) for trial in others] == [("stopped", 2)] * 3
    assert (failed.status, failed.epochs, failed.value) == ("failed", 0, None)
    assert report.concurrent == 2
    assert "the loss is not finite" in str(failed.error)
    assert "\n" not in str(failed.error)
    assert report.best == first
    for trial in report.trials[:5]:
        run = RunFolder(trial.run)
        assert [line["epoch"] for line in read_metrics(run)] == list(range(trial.epochs))
        board = EventAccumulator(str(run.tensorboard)).Reload()
        assert [event.step for event in board.Scalars("test/top1")] == list(range(trial.epochs))
        assert trial.value == read_metrics(run)[-1]["test/top1"]


def check_watched(seen: list[Experiment]) -> None:
    assert max(experiment.counts["running"] for experiment in seen) == 2
    assert all(cell.over for cell in seen[-1].cells)
    assert {cell.state for e in seen for cell in e.cells} == {
        *("planned", "running", "stopped", "failed", "done")
    }


def check_slots_are_free() -> None:
    deadline = time.monotonic() + 60
    while cpus_free() < 8 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert cpus_free() == 8


def check_files(report: SweepReport) -> None:
    experiment = read_experiment(str(report.folder)).experiment
    assert experiment.finished
    assert [cell.epoch for cell in experiment.cells] == [trial.epochs for trial in report.trials]
    assert all(c.ended and c.started and c.ended >= c.started for c in experiment.cells)
    table = pq.read_table(report.folder / "trials.parquet")
    with (report.folder / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert table.column_names == list(rows[0])
    assert {"trial", "status", LR, "epochs", "test/top1", "run", "error"} <= set(rows[0])
    assert table["status"].to_pylist() == [row["status"] for row in rows]
    assert table[LR].to_pylist() == [float(row[LR]) for row in rows]
    assert table["test/top1"].to_pylist() == [trial.value for trial in report.trials]
    for row, trial in zip(rows, report.trials, strict=True):
        assert (report.folder / row["run"]).resolve() == trial.run.resolve()
    assert {path.name for path in report.folder.iterdir()} == {
        "config.yaml",
        "best.yaml",
        "summary.json",
        "trials.csv",
        "trials.parquet",
        "trials",
        "experiment.json",
    }


def check_the_best_trains_again(report: SweepReport, tmp_path: Path) -> None:
    assert report.best is not None
    config = load_config(str(report.best_config), [f"runs={tmp_path / 'again'}"])
    assert config.sweep.space == {}
    done = distill.run(config)
    assert done.top1 == report.best.value
    assert_same_weights(done.run, report.best.run)


@pytest.mark.slow  # two searches, each trial in a process that imports torch
@pytest.mark.usefixtures("ray_cluster")
def test_a_sweep_grows_and_runs_as_it_is_told_now(small: MakeConfig) -> None:
    """Three samples instead of two keep the first two; limits are those of the last command."""
    space = f"sweep.space={{{LR}: {{uniform: [0.001, 0.01]}}}}"
    sets = (space, "sweep.scheduler=fifo", "distill.epochs=1")
    first = sweep.run(small(*sets, "sweep.samples=2", "sweep.max_concurrent=1"))
    assert (len(first.trials), first.concurrent) == (2, 1)
    before = {t.run: (t.run / "summary.json").stat().st_mtime_ns for t in first.trials}
    more = sweep.run(small(*sets, "sweep.samples=5", "sweep.max_concurrent=3"))
    assert more.folder == first.folder
    assert [t.number for t in more.trials] == list(range(5))
    assert [t.changes for t in more.trials[:2]] == [t.changes for t in first.trials]
    assert before == {run: (run / "summary.json").stat().st_mtime_ns for run in before}
    assert len({t.changes[LR] for t in more.trials}) == 5
    assert more.concurrent > 1
    fewer = sweep.run(small(*sets, "sweep.samples=2"))
    assert fewer.finished_before
    assert fewer.trials == more.trials


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_sweep_of_which_nothing_is_left_says_why(small: MakeConfig) -> None:
    """A trial that failed is left alone unless it is asked for."""
    config = small(f"sweep.space={{{LR}: {{grid: [1.0e+30]}}}}", "sweep.max_failures=0")
    folder = sweep_folder(config)
    tried: list[int] = []
    for retry in (False, False, True):
        with pytest.raises(TrainingError, match=r"1 of 1 failed: the loss is not finite") as raised:
            sweep.run(config, retry_failed=retry)
        assert "\n" not in str(raised.value)
        tried += [error.stat().st_mtime_ns for error in folder.trials.glob("*/error.json")]
    first, left_alone, again = tried
    assert first == left_alone < again


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["store.url=nowhere"], "egapipe extract"),
        (["dataset.test=null"], "sweep.metric is test/top1, but quickstart has no dataset.test"),
        (["distill.student.name=digits_cmn"], "digits_cnn"),
        (["sweep.space={distill.lrr: {grid: [1]}}"], "did you mean 'lr'?"),
        (["sweep.space={}"], "sweep.space is empty"),
    ],
)
def test_what_every_trial_would_stumble_over_is_refused_before_any(
    small: MakeConfig, tmp_path: Path, sets: list[str], said: str
) -> None:
    with pytest.raises((UsageError, StoreError), match=said) as raised:
        sweep.run(small(f"sweep.space={{{LR}: {{grid: [0.1]}}}}", *sets))
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []
