"""What Ray Train survives beside a killed worker (test_ray): its driver, and a node.

Each starts Ray three times, half a minute or more on a small machine.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from egapipe.pipeline.config import Config, to_yaml
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.stages import distill
from egapipe.stages.distill.folder import training_folder
from tests.command import COMMAND
from tests.stages.distill.conftest import MakeConfig
from tests.stages.distill.test_kills import kill_after_progress
from tests.stages.distill.test_training import assert_same_weights

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SETS = ["distill.workers=2", "distill.epochs=8", "distill.checkpoint_steps=5", "cluster.cpus=6"]


@pytest.fixture(autouse=True)
def own_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Ray of this test alone: it would join one that it finds on this machine."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    # Not tmp_path, whose length leaves too little for the names of sockets.
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        yield


def run_in_a_process(command: list[str], config: Config, folder: Path) -> str:
    """Run a program on a configuration file, and return what it printed."""
    file = folder / "config.yaml"
    file.write_text(to_yaml(config))
    done = subprocess.run([*command, str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_killed_driver_is_started_again_and_the_weights_are_the_same(
    quick: MakeConfig, tmp_path: Path
) -> None:
    """With SIGKILL, twice; its local Ray and the workers die with it."""
    command = [*COMMAND, "distill", "-c"]
    undisturbed = quick(*SETS, f"runs={tmp_path / 'undisturbed'}")
    run_in_a_process(command, undisturbed, tmp_path)
    config = quick(*SETS)
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    again = ["distill", "-c", str(tmp_path / "config.yaml")]
    kills = sum(kill_after_progress(again, training_folder(config), 0.1) for _ in range(2))
    assert kills >= 1
    run_in_a_process(command, config, tmp_path)
    assert_same_weights(training_folder(undisturbed).path, training_folder(config).path)
    assert [m["epoch"] for m in read_metrics(training_folder(config))] == list(range(8))


def test_a_lost_node_is_done_without_and_the_weights_are_the_same(
    quick: MakeConfig, tmp_path: Path
) -> None:
    """Of three nodes with room for a worker each, one that a worker trains on."""
    config = quick(*SETS, "distill.epochs=40")
    command = [sys.executable, "-m", "tests.stages.distill.lost_node", "3"]
    said = json.loads(run_in_a_process(command, config, tmp_path).splitlines()[-1])
    assert len(said["lost"]) == 1
    assert distill.load_student(said["run"]).accuracy().top1 > 20
    assert [m["epoch"] for m in read_metrics(training_folder(config))] == list(range(40))
    undisturbed = quick(*SETS, "distill.epochs=40", f"runs={tmp_path / 'undisturbed'}")
    run_in_a_process([*COMMAND, "distill", "-c"], undisturbed, tmp_path)
    assert_same_weights(training_folder(undisturbed).path, training_folder(config).path)


def test_a_lost_node_that_nothing_replaces_leaves_fewer_workers(
    quick: MakeConfig, tmp_path: Path
) -> None:
    """Of two nodes with room for a worker each, one."""
    elastic = ["distill.min_workers=1", "distill.sync_batchnorm=true", "distill.epochs=40"]
    config = quick(*SETS, *elastic)
    command = [sys.executable, "-m", "tests.stages.distill.lost_node", "2"]
    said = json.loads(run_in_a_process(command, config, tmp_path).splitlines()[-1])
    assert len(said["lost"]) == 1
    assert distill.load_student(said["run"]).accuracy().top1 > 20
    assert [m["epoch"] for m in read_metrics(training_folder(config))] == list(range(40))
