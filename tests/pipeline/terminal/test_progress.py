"""What a run shows of its progress, on a terminal and in a log."""

import io
import json
import os
import pty
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest

from egapipe.pipeline.terminal import progress as module
from egapipe.pipeline.terminal.progress import (
    JsonLines,
    Progress,
    Silence,
    TerminalBar,
    Value,
    describe,
    open_progress,
    silent_progress,
)


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Kept(Silence):
    """Keeps what it is shown."""

    def __init__(self) -> None:
        self.states: list[dict[str, Value]] = []
        self.notes: list[str] = []
        self.closed = 0

    def show(self, state: Mapping[str, Value]) -> None:
        self.states.append(dict(state))

    def note(self, text: str) -> None:
        self.notes.append(text)

    def close(self, state: Mapping[str, Value]) -> None:
        self.show(state)
        self.closed += 1


def test_rate_and_time_left_count_what_was_done_since_the_start() -> None:
    clock, kept = Clock(), Kept()
    progress = Progress(kept, "extract", 1000, done=400, clock=clock)
    clock.now += 10
    progress.update(500, wait_share=0.25)
    assert kept.states == [
        {
            "task": "extract",
            "done": 500,
            "total": 1000,
            "unit": "rows",
            "seconds": 10.0,
            "per_second": 10.0,
            "eta_seconds": 50.0,
            "wait_share": 0.25,
        }
    ]


def test_details_are_shown_to_those_who_have_asked() -> None:
    stream, clock = io.StringIO(), Clock()
    for detailed in (False, True):
        progress = Progress(JsonLines(stream, clock=clock), "t", 10, detailed=detailed)
        progress.detail(["host-a  shard 7", "host-b  shard 9"])
        clock.now += 60
        progress.update(1)
        progress.close()
    states = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [state.get("details") for state in states] == [
        None,
        None,
        ["host-a  shard 7", "host-b  shard 9"],
        None,
    ]


def test_nothing_done_has_no_time_left() -> None:
    clock, kept = Clock(), Kept()
    progress = Progress(kept, "t", 10, clock=clock)
    progress.update(0)
    clock.now += 3
    progress.update(0)
    assert all("eta_seconds" not in state for state in kept.states)
    assert [state["per_second"] for state in kept.states] == [0.0, 0.0]


def test_the_end_shows_the_last_state_also_after_an_error() -> None:
    kept = Kept()
    progress = Progress(kept, "t", 10)
    progress.update(7, failed=1)
    progress.note("a worker was lost")
    with pytest.raises(ZeroDivisionError), progress:
        raise ZeroDivisionError
    assert (kept.closed, kept.notes) == (1, ["a worker was lost"])
    assert (kept.states[-1]["done"], kept.states[-1]["failed"]) == (7, 1)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_log_gets_a_line_every_few_seconds_and_one_at_the_end() -> None:
    clock, stream = Clock(), io.StringIO()
    display = JsonLines(stream, every=5, clock=clock)
    for second in range(12):
        clock.now = 100.0 + second
        display.show({"done": second})
    display.note("careful")
    display.close({"done": 12})
    assert lines(stream) == [
        {"done": 5},
        {"done": 10},
        {"note": "careful"},
        {"done": 12, "closed": True},
    ]


STATE: dict[str, Value] = {
    "task": "extract train",
    "done": 1024,
    "total": 50_000,
    "unit": "rows",
    "seconds": 2.0,
    "per_second": 512.0,
    "eta_seconds": 95.7,
    "wait_share": 0.034,
    "loss": 0.123456,
    "failed": 3,
}


def test_a_state_in_words() -> None:
    assert describe(STATE) == (
        "1,024/50,000  512 rows/s  1:36 left  wait 3 %  loss 0.123  failed 3"
    )


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.0, "0:00"), (59.6, "1:00"), (3599.0, "59:59"), (3661.0, "1:01:01")]
)
def test_time_left_in_minutes_or_hours(seconds: float, shown: str) -> None:
    assert f"  {shown} left" in describe({**STATE, "eta_seconds": seconds})


def test_a_state_without_time_left_in_words() -> None:
    state = {k: v for k, v in STATE.items() if k != "eta_seconds"}
    assert "left" not in describe(state)


def test_a_pipe_gets_json(capsys: pytest.CaptureFixture[str]) -> None:
    with open_progress("extract", 20, done=5, unit="images") as progress:
        progress.update(20)
    out, err = capsys.readouterr()
    last = json.loads(err.splitlines()[-1])
    assert out == ""
    assert (last["task"], last["done"], last["unit"], last["closed"]) == (
        "extract",
        20,
        "images",
        True,
    )


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        with open_progress("extract [train]", 20) as progress:
            progress.note("shard 3 lost its worker [oom]")
            progress.update(20, wait_share=0.5)
    shown = everything(master)
    assert "extract [train]" in shown
    assert "shard 3 lost its worker [oom]" in shown
    assert "20/20" in shown
    assert "wait 50 %" in shown
    assert "━" in shown


def everything(terminal: int) -> str:
    """What was written to a terminal whose other end is closed."""
    shown = b""
    with os.fdopen(terminal, "rb", buffering=0) as end, suppress(OSError):
        while part := end.read(4096):
            shown += part
    return shown.decode()


@pytest.mark.parametrize("columns", [84, 200])
def test_the_words_of_a_bar_fit_on_a_narrow_terminal(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    state: dict[str, Value] = {k: v for k, v in STATE.items() if k not in ("loss", "failed")}
    state |= {"infer_share": 0.9, "write_share": 0.066}
    bar = TerminalBar()
    bar.show(state)
    bar.close(state)
    shown = capsys.readouterr().err
    assert "extract train" in shown
    assert describe(state) in shown


def test_silence_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with silent_progress("t", 3) as progress:
        progress.update(3)
        progress.note("x")
    assert capsys.readouterr() == ("", "")
    assert isinstance(module.silent_progress("t", 1), Progress)
