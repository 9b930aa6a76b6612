"""Trials of several workers: each nests a Ray Train run."""

import time

import pytest
import ray

from egapipe.pipeline.results.runs import RunFolder
from egapipe.stages import sweep
from tests.stages.sweep.conftest import MakeConfig


@pytest.mark.slow  # a Ray Train run takes half a minute to begin and to end
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("ray_cluster")
def test_trials_of_two_workers_that_end_early_leave_their_cpus(small: MakeConfig) -> None:
    """A trial takes 3 of 8 CPUs, so two run at once and the third one comes after them."""
    config = small(
        "sweep.space={distill.lr: {grid: [0.05, 1.0e-7, 2.0e-7]}}",
        "sweep.search=grid",
        "sweep.scheduler={grace_epochs: 2}",
        "distill.workers=2",
        "distill.epochs=60",
    )
    report = sweep.run(config)
    assert report.concurrent == 2
    first, second, third = report.trials
    assert report.best == first
    assert RunFolder(first.run).summary()["workers"] == 2
    assert second.status in ("finished", "stopped")
    assert third.status == "stopped"
    deadline = time.monotonic() + 60
    while ray.available_resources().get("CPU", 0.0) < 8 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert ray.available_resources()["CPU"] == 8
