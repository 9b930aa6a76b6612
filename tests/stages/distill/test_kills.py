"""Killed with SIGKILL at random moments, a training ends with the weights of an undisturbed one."""

import time
from pathlib import Path

import numpy as np
import pytest

from egapipe.pipeline.config import to_yaml
from egapipe.pipeline.results.runs import RunFolder, run_folder
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.stages import distill
from tests.command import egapipe, start
from tests.stages.distill.conftest import MakeConfig
from tests.stages.distill.test_training import assert_same_weights


def kill_after_progress(command: list[str], run: RunFolder, pause: float) -> bool:
    """Start a training, SIGKILL it `pause` seconds after it wrote a first checkpoint of its own.

    False if it finished before.
    """
    before = set(run.checkpoints.glob("epoch*"))
    process = start(*command)
    while process.poll() is None and set(run.checkpoints.glob("epoch*")) <= before:
        time.sleep(0.005)
    time.sleep(pause)
    killed = process.poll() is None
    if killed:
        process.kill()
    process.wait()
    return killed


@pytest.mark.parametrize(
    "objective",
    [
        "{ega: 0.5}",
        # Its banks and counters are resumed in `test_resume`, which needs no processes.
        pytest.param("{crd: {weight: 0.1, negatives: 64}}", marks=pytest.mark.slow),
    ],
)
def test_killed_trainings_end_with_the_same_weights(
    quick: MakeConfig, tmp_path: Path, objective: str
) -> None:
    sets = ["distill.epochs=6", "distill.checkpoint_steps=3", f"distill.objective={objective}"]
    undisturbed = distill.run(quick(*sets, f"runs={tmp_path / 'undisturbed'}"))
    config = quick(*sets)
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    command = ["distill", "-c", str(tmp_path / "config.yaml")]
    rng = np.random.default_rng(0)
    kills = sum(
        kill_after_progress(command, run_folder(config), rng.uniform(0, 0.15)) for _ in range(3)
    )
    assert kills >= 2
    end = egapipe(*command)
    assert end.returncode == 0, end.stderr
    finished = run_folder(config)
    assert_same_weights(undisturbed.run, finished.path)
    one, two = read_metrics(RunFolder(undisturbed.run)), read_metrics(finished)
    clock = {"train/seconds", "train/rows_per_s", "train/data_wait"}
    assert [{k: v for k, v in line.items() if k not in clock} for line in one] == [
        {k: v for k, v in line.items() if k not in clock} for line in two
    ]
