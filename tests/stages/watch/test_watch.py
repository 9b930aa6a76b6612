"""A run is described from its files, while it is trained and after."""

import math
import os
import time
from pathlib import Path

import pytest

from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.runs import RunFolder, run_folder
from egapipe.stages import distill
from egapipe.stages.watch import RunStatus, run_status
from egapipe.stages.watch.command import COLUMNS, cells
from egapipe.stages.watch.status import find_runs, sparkline
from tests.command import egapipe
from tests.stages.distill.conftest import MakeConfig


def test_a_run_is_followed_from_epoch_to_epoch(quick: MakeConfig) -> None:
    config = quick()
    folder = run_folder(config)
    seen: list[RunStatus] = []
    distill.run(config, report=lambda epoch, metrics: seen.append(run_status(folder.path)))
    assert [(status.epoch, status.epochs, status.state) for status in seen] == [
        (1, 3, "running"),
        (2, 3, "running"),
        (3, 3, "running"),
    ]
    assert all(status.eta is not None and math.isfinite(status.eta) for status in seen)
    done = run_status(folder.path)
    summary = folder.summary()
    assert (done.state, done.epoch) == ("finished", 3)
    assert done.top1 == pytest.approx(summary["top1"])
    assert done.best_top1 == pytest.approx(summary["best_top1"])
    assert len(cells(done)) == len(COLUMNS)


def test_a_run_that_says_nothing_for_long_is_quiet(quick: MakeConfig) -> None:
    folder = RunFolder(distill.run(quick("distill.epochs=1")).run)
    (folder.path / "summary.json").unlink()
    hour_ago = time.time() - 3600
    os.utime(folder.metrics, (hour_ago, hour_ago))
    assert run_status(folder.path).state == "quiet"
    assert run_status(folder.path, now=hour_ago + 1).state == "running"
    folder.metrics.unlink()
    assert run_status(folder.path) == RunStatus(folder.path, "starting", 0, 1)


def test_the_command_shows_every_run_below_a_folder(quick: MakeConfig) -> None:
    runs = [distill.run(quick("distill.epochs=1", f"distill.seed={seed}")).run for seed in (0, 1)]
    assert find_runs(runs[0].parent) == sorted(runs)
    done = egapipe("watch", str(runs[0].parent), "--once")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("finished") == 2


def test_a_folder_without_runs_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no run folder"):
        find_runs(tmp_path)


def test_a_sparkline_goes_from_the_lowest_to_the_highest() -> None:
    assert sparkline([3.0, 2.0, 1.0]) == "█▅▁"
    assert sparkline([1.0] * 3) == "▁▁▁"
    assert sparkline([]) == ""
