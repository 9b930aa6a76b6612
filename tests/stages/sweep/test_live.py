"""The table in the terminal: trial, settings, epoch, metric, time left."""

from dataclasses import replace
from pathlib import Path

from rich.console import Console

from egapipe.pipeline.config import load_config
from egapipe.stages.sweep.live import clock, shown, table
from egapipe.stages.sweep.state import Status, TrialState, best

LAMBDA = "distill.objective.ega.weight"


def state(number: int, status: Status, value: float | None, **more: object) -> TrialState:
    fresh = TrialState(number, {LAMBDA: number / 8}, status, 3, 60, value, None, Path("run"))
    return replace(fresh, **more)  # type: ignore[arg-type]


STATES = [
    state(0, "finished", 90.0, epochs=60),
    state(1, "finished", 92.5, epochs=60),
    state(2, "running", 50.0, epochs=12, eta=61.0),
    state(3, "stopped", 99.0),
    state(4, "failed", None, epochs=0, error="the loss is not finite"),
    state(5, "waiting", None, epochs=0),
]


def drawn(room: int, states: list[TrialState] = STATES) -> list[list[str]]:
    config = load_config("quickstart", [f"sweep.space={{{LAMBDA}: {{uniform: [0, 1]}}}}"])
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table(config, states, room))
    return [line.split() for line in capture.get().splitlines() if line.strip()]


def test_a_trial_is_a_line() -> None:
    title, head, running, *others = drawn(10)
    assert " ".join(title) == ("quickstart: 1 running, 1 waiting, 2 finished, 1 stopped, 1 failed")
    assert head == ["trial", "ega.weight", "epoch", "test/top1", "left"]
    assert running == ["2", "0.25", "12/60", "50", "1:01", "running"]
    assert others == [
        ["1", "0.125", "60/60", "92.5", "best"],
        ["0", "0", "60/60", "90", "finished"],
        ["4", "0.5", "0/60", "the", "loss", "is", "not", "finite"],
        ["3", "0.375", "3/60", "99", "stopped"],
        ["5", "0.625", "0/60", "waiting"],
    ]


def test_what_looks_like_markup_is_shown() -> None:
    """rich refuses a closing tag that nothing opened."""
    lines = drawn(10, [state(0, "failed", None, error="no [/student] in [red] x")])
    assert lines[-1][-5:] == ["no", "[/student]", "in", "[red]", "x"]


def test_what_does_not_fit_is_counted() -> None:
    assert [line[0] for line in drawn(2)[2:]] == ["2", "1", "and"]
    assert drawn(2)[-1] == ["and", "4", "more"]


def test_the_best_is_of_those_that_finished() -> None:
    """A trial that was ended early may have been ahead for an epoch."""
    assert best(STATES, "max") == STATES[1]
    assert best(STATES, "min") == STATES[0]
    assert best(STATES[2:], "max") is None
    order = [state.number for state in shown(STATES, "min", 10)]
    assert order == [2, 0, 1, 4, 3, 5]


def test_time_left() -> None:
    assert [clock(seconds) for seconds in (0.4, 65, 7200)] == ["0:00", "1:05", "2:00:00"]
