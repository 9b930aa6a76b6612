"""A run is described from its files, while it is trained and after."""

import math
import os
import time
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from egapipe.pipeline.config import load_config, to_yaml
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.results.experiment import Cell, Experiment, Setting, State, write_experiment
from egapipe.pipeline.results.runs import RunFolder, run_folder
from egapipe.stages import distill
from egapipe.stages.watch import RunStatus, run_status
from egapipe.stages.watch.command import COLUMNS, cells, drawing, register
from egapipe.stages.watch.status import find_runs, look, sparkline
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
    assert run_status(folder.path).state == "interrupted"
    with folder.exclusive():
        assert run_status(folder.path).state == "quiet"
    assert run_status(folder.path, now=hour_ago + 1).state == "running"
    folder.metrics.unlink()
    assert run_status(folder.path).state == "starting"
    os.utime(folder.path / "config.yaml", (hour_ago, hour_ago))
    assert run_status(folder.path).state == "interrupted"


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
        look(tmp_path)


def test_a_sparkline_goes_from_the_lowest_to_the_highest() -> None:
    assert sparkline([3.0, 2.0, 1.0]) == "█▅▁"
    assert sparkline([1.0] * 3) == "▁▁▁"
    assert sparkline([]) == ""


def cell(number: int, state: State, run: str) -> Cell:
    own = {"number": number, "setting": "s", "seed": number, "state": state, "run": run}
    return Cell.model_validate({**own, "epochs": 60})


def recorded(folder: Path, *cells: Cell, beat: float | None = None) -> None:
    experiment = Experiment(
        kind="comparison",
        name="grid",
        metric="test/top1",
        mode="max",
        planned=len(cells) + 1,
        beat=beat,
        settings=(Setting(name="s", label="s"),),
        cells=cells,
    )
    write_experiment(RunFolder(folder), experiment)


def test_a_comparison_is_shown_with_its_cells_which_lie_beside_it(tmp_path: Path) -> None:
    states: list[State] = ["stopped", "failed", "running"]
    for number in range(3):
        begun(tmp_path / f"run{number}", '{"epoch": 0, "train/loss": 1.0}\n')
    cells = [cell(n, state, f"../run{n}") for n, state in enumerate(states)]
    recorded(tmp_path / "compare-1", *cells, beat=time.time())
    found = look(tmp_path / "compare-1")
    assert [run.state for run in found.runs if run.over] == ["failed", "stopped"]
    assert found.runs[0].state == "running"
    assert not found.over
    assert {run.path for run in found.runs} == {tmp_path / f"run{n}" for n in range(3)}
    # The same from the folder of all of them.
    assert {(r.path, r.state) for r in look(tmp_path).runs} == {
        (r.path, r.state) for r in found.runs
    }
    # The command is gone, and what it trained with it.
    recorded(tmp_path / "compare-1", *cells)
    hour_ago = time.time() - 3600
    os.utime(tmp_path / "run2" / "metrics.jsonl", (hour_ago, hour_ago))
    assert look(tmp_path / "compare-1").over


def test_a_hundred_runs_fit_a_terminal_and_the_newest_are_first(tmp_path: Path) -> None:
    now, name = time.time(), 3 * "a-name-that-is-longer-than-the-terminal-"
    for number in range(100):
        run = begun(
            tmp_path / f"digits_cnn-ega+kd-seed{number}-{name}",
            '{"epoch": 0, "train/loss": 1.25, "test/top1": 50.0, "train/rows_per_s": 123456, '
            '"train/data_wait": 0.5, "train/seconds": 1.0}\n',
        )
        os.utime(run / "metrics.jsonl", (now - 100 * number, now - 100 * number))
    recorded(tmp_path / "compare-1", cell(0, "running", "../nothing"))
    console = Console(width=100, height=30)
    with console.capture() as capture:
        console.print(drawing(look(tmp_path), 100, 30))
    lines = capture.get().splitlines()
    assert len(lines) <= 28
    assert max(map(len, lines)) <= 100
    assert lines[0] == "grid: cell 1 of 2, 1 running"
    assert "seed0-" in lines[2]
    assert "seed1-" in lines[3]
    # A name gives way to numbers, however long it is.
    head = "run state epoch loss top-1 % best rows/s data wait left"
    assert " ".join(lines[1].split()) == head
    assert lines[2].split()[2:8] == ["1/60", "1.25", "50.00", "50.00", "123456", "50.0%"]
    assert lines[-1].strip() == "and 76 more, older"
