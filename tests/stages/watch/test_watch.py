"""A run is described from its files, while it is trained and after."""

import math
import os
import time
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from egapipe.pipeline.config import load_config, to_yaml
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.results.runs import RunFolder, run_folder
from egapipe.stages import distill
from egapipe.stages.watch import RunStatus, run_status
from egapipe.stages.watch.command import COLUMNS, cells, register
from egapipe.stages.watch.status import find_runs, sparkline, statuses
from tests.command import egapipe
from tests.permissions import unprivileged
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
    assert find_runs(runs[0].parent) == (sorted(runs), [])
    done = egapipe("watch", str(runs[0].parent), "--once")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("finished") == 2


def begun(folder: Path, metrics: str = "") -> Path:
    """A run of the quickstart, as far as these files go."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(to_yaml(load_config("quickstart")), "utf-8")
    (folder / "store.json").write_text("{}")
    (folder / "metrics.jsonl").write_text(metrics)
    return folder


def test_a_run_that_cannot_be_shown_hides_no_other(tmp_path: Path) -> None:
    begun(tmp_path / "a" / "sound")
    (begun(tmp_path / "a" / "damaged") / "config.yaml").write_text("{")
    begun(tmp_path / "closed" / "run")
    app = typer.Typer()
    register(app)
    assert CliRunner().invoke(app, [str(tmp_path), "--once"]).exit_code == 1
    (tmp_path / "closed").chmod(0)
    with unprivileged(tmp_path):
        shown = CliRunner().invoke(app, [str(tmp_path), "--once"])
    (tmp_path / "closed").chmod(0o700)
    assert shown.exit_code == 1
    assert "sound" in shown.stdout
    closed, damaged = shown.stderr.splitlines()
    assert closed == f"error: cannot look into {tmp_path}/closed: Permission denied"
    assert damaged.startswith(f"error: {tmp_path}/a/damaged cannot be shown: ")


def test_metrics_of_any_kind_are_shown(tmp_path: Path) -> None:
    """Of a training that diverged, or by another program."""
    lines = ['{"epoch": 0, "train/loss": NaN}', '{"epoch": 1, "train/loss": "x", "test/top1": []}']
    run = begun(tmp_path / "run", "".join(f"{line}\n" for line in lines))
    status = run_status(run)
    assert (status.epoch, status.loss, status.top1, status.losses) == (2, None, None, ())
    assert len(cells(status)) == len(COLUMNS)


def test_a_folder_without_runs_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no run folder"):
        statuses(tmp_path)


def test_a_sparkline_goes_from_the_lowest_to_the_highest() -> None:
    assert sparkline([3.0, 2.0, 1.0]) == "█▅▁"
    assert sparkline([1.0] * 3) == "▁▁▁"
    assert sparkline([]) == ""
