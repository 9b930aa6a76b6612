"""The command line: quick to answer, and a user's mistake is one line."""

import importlib
import logging
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import typer
import yaml

from egapipe.pipeline.cli import COMMANDS, show_warnings
from egapipe.pipeline.config.teachers import RunTeacher
from tests.command import COMMAND, egapipe, fresh_egapipe, imported


def test_help_names_every_command() -> None:
    shown = fresh_egapipe("--help").stdout
    for command in COMMANDS:
        stage, _, module = command.rpartition(".")
        if module == "command":
            assert f" {stage.rpartition('.')[2]} " in shown


# What typer and pydantic bring, and what reads YAML and draws the help; its time is measured by
# `egapipe bench help`.
LIGHT = {
    *(
        "annotated_doc",
        "annotated_types",
        "attr",
        "click",
        "cython_runtime",
        "dateutil",
        "egapipe",
        "linkify_it",
    ),
    *("markdown_it", "mdurl", "pydantic", "pydantic_core", "pygments", "rich", "shellingham"),
    *("sitecustomize", "typer", "typing_extensions", "typing_inspection", "usercustomize", "yaml"),
}


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["distill", "--help"], ["config", "list"], ["extract", "-c", "quickstrat"]],
)
def test_what_answers_at_once_imports_nothing_heavy(arguments: list[str]) -> None:
    assert imported(*arguments) - LIGHT == set()


def test_a_command_that_works_is_seen_to_import_more() -> None:
    assert imported("config", "show") >= {"pydantic", "yaml"}


def test_config_show_prints_what_loads_again(tmp_path: Path) -> None:
    shown = egapipe("config", "show", "-c", "cifar100", "--set", "distill.lr=0.25").stdout
    assert yaml.safe_load(shown)["distill"]["lr"] == 0.25
    (tmp_path / "again.yaml").write_text(shown)
    assert egapipe("config", "show", "-c", str(tmp_path / "again.yaml")).stdout == shown


MISTAKES = {
    "unknown key": (["config", "show", "--set", "distil.lr=1"], "did you mean 'distill'"),
    "wrong value": (["config", "show", "--set", "distill.lr=fast"], "distill.lr"),
    "no such config": (["distill", "-c", "quickstrat"], "quickstart"),
    "no such run": (["evaluate", "nowhere"], "nowhere is not a run folder"),
    "no such folder": (
        ["extract", "--set", "dataset.train={kind: folder, path: nowhere}"],
        "nowhere",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(mistake: str, tmp_path: Path) -> None:
    arguments, said = MISTAKES[mistake]
    run = egapipe(*arguments, cwd=tmp_path)
    assert run.returncode == 2
    assert run.stderr.startswith("error: ")
    assert said in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_distilling_before_extracting_says_so(tmp_path: Path) -> None:
    run = egapipe("distill", cwd=tmp_path)
    assert run.returncode == 1
    assert "egapipe extract" in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with the quickstart's stores."""
    folder = tmp_path_factory.mktemp("extracted")
    assert egapipe("extract", "--local", cwd=folder).returncode == 0
    return folder


def test_a_place_that_cannot_be_written_is_one_line(extracted: Path) -> None:
    for place in ("/proc/nowhere", "stores/quickstart/train.zarr/zarr.json"):
        run = egapipe("distill", "--set", f"runs={place}", cwd=extracted)
        assert run.returncode == 2
        assert f"cannot write {place}" in run.stderr
        assert len(run.stderr.strip().splitlines()) == 1


def test_a_disk_that_is_full_is_one_line() -> None:
    """/dev/full takes no byte; the command's own output goes there."""
    script = f"{sys.executable} -m egapipe.pipeline.cli config show > /dev/full"
    run = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "No space left" in run.stderr
    assert "Traceback" not in run.stderr


def test_an_interrupt_is_one_line_and_the_next_run_continues(extracted: Path) -> None:
    command = [*COMMAND, "distill", "--set", "distill.epochs=2000"]
    run = subprocess.Popen(
        command,
        cwd=extracted,
        stderr=subprocess.PIPE,
        text=True,
        # Ignored where the tests themselves run in the background of a shell.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while run.poll() is None and not list(extracted.glob("runs/*/*/checkpoints/last.json")):
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    said = run.communicate(timeout=60)[1]
    assert run.returncode == 130
    lines = [line for line in said.splitlines() if not line.startswith("{")]
    assert lines == ["interrupted: run the same command again to continue"]
    assert not list(extracted.glob("runs/*/*/summary.json"))


def test_every_command_that_takes_a_run_takes_each_of_its_weights() -> None:
    app = typer.Typer()
    for name in COMMANDS:
        importlib.import_module(name).register(app)
    offered = {
        callback.__name__: get_args(get_type_hints(callback)["checkpoint"])
        for callback in (command.callback for command in app.registered_commands)
        if callback is not None and "checkpoint" in callback.__annotations__
    }
    weights = get_args(RunTeacher.model_fields["checkpoint"].annotation)
    assert weights == ("last", "best", "ema")
    assert offered == dict.fromkeys(("evaluate", "export", "predict", "neighbours"), weights)


def test_a_warning_is_one_line_whatever_is_named_in_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger("egapipe")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "propagate", True)
    for _ in range(2):
        show_warnings()
    logging.getLogger("egapipe.pipeline.store").warning("%s is left out", "a\nb\x1b[31m 猫")
    logging.getLogger("egapipe.pipeline.store").info("not this")
    assert capsys.readouterr().err == "a↵b\ufffd[31m 猫 is left out\n"
