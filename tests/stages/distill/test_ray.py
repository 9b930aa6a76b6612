"""The same loop on Ray Train workers. A run costs ~20 s, so one run checks several things."""

import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch

from egapipe.pipeline.errors import TrainingError, UsageError
from egapipe.pipeline.results.runs import RunFolder
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.stages import distill
from egapipe.stages.distill.folder import training_folder
from tests.stages.distill.conftest import MakeConfig
from tests.stages.distill.test_training import assert_same_weights, weights

pytestmark = pytest.mark.usefixtures("ray_cluster")


def kill_a_worker_after_an_epoch(run: RunFolder, killed: list[int]) -> None:
    """SIGKILL one Ray Train worker process as soon as the first epoch is in metrics.jsonl."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if run.checkpoints.is_dir() and read_metrics(run):
            workers = [p for p in psutil.process_iter(["cmdline"]) if is_train_worker(p)]
            if workers:
                killed.append(workers[-1].pid)
                os.kill(workers[-1].pid, signal.SIGKILL)
                return
        time.sleep(0.02)


def is_train_worker(process: psutil.Process) -> bool:
    command = process.info["cmdline"] or [""]
    return command[0].startswith("ray::") and "RayTrainWorker" in command[0]


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_the_weights_are_the_same(
    quick: MakeConfig, tmp_path: Path
) -> None:
    """Slow: two trainings on Ray, one of which is started again."""
    sets = ["distill.workers=2", "distill.epochs=8"]
    undisturbed = distill.run(quick(*sets, f"runs={tmp_path / 'undisturbed'}"))
    assert undisturbed.summary["workers"] == 2
    assert undisturbed.summary["top1"] > 20
    config = quick(*sets)
    killed: list[int] = []
    killer = threading.Thread(
        target=kill_a_worker_after_an_epoch, args=(training_folder(config), killed)
    )
    killer.start()
    survivor = distill.run(config)
    killer.join()
    assert len(killed) == 1
    assert [m["epoch"] for m in read_metrics(training_folder(config))] == list(range(8))
    assert_same_weights(undisturbed.run, survivor.run)


def test_two_workers_compute_what_one_computes(quick: MakeConfig, tmp_path: Path) -> None:
    """Without batch norm nothing in a step depends on how a global batch is split."""
    sets = ["distill.student.name=torch.nn:Flatten", "distill.epochs=2", "distill.lr=0.01"]
    alone = distill.run(quick(*sets, f"runs={tmp_path / 'alone'}"))
    told: list[int] = []
    shared = distill.run(
        quick(*sets, "distill.workers=2"), report=lambda epoch, metrics: told.append(epoch)
    )
    assert told == [0, 1]
    one, two = weights(alone.run), weights(shared.run)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.slow  # half a minute: a Ray Train run that fails
def test_an_explained_error_comes_back_as_itself(quick: MakeConfig) -> None:
    config = quick("distill.workers=2", "distill.lr=1e18", "distill.weight_decay=1e18")
    with pytest.raises(TrainingError, match=r"not finite at epoch"):
        distill.run(config)


def test_more_workers_than_there_ever_will_be_are_refused_at_once(quick: MakeConfig) -> None:
    """Ray would wait for them without a word."""
    with pytest.raises(UsageError, match=r"9 workers need a CPU each, Ray has 8.*cluster\.cpus=9"):
        distill.run(quick("distill.workers=9", "distill.epochs=1"))
