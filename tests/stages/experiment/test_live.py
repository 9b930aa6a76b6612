"""The table in the terminal while cells run together: it fits, and an error stands below it."""

from typing import Any

from rich.console import Console

from egapipe.pipeline.results.experiment import Cell, Experiment, Setting, State
from egapipe.stages.experiment.live import LiveTable, drawing, heading, shown
from egapipe.stages.experiment.pace import Pace

LAMBDA = "distill.objective.ega.weight"


def cell(number: int, state: State, value: float | None, **more: Any) -> Cell:
    own = {"number": number, "setting": f"s{number}", "seed": 0, "state": state, "value": value}
    return Cell.model_validate({"epoch": 3, "epochs": 60, **own, **more})


CELLS = [
    cell(0, "done", 90.0, epoch=60),
    cell(1, "done", 92.5, epoch=60),
    cell(2, "running", 50.0, epoch=12),
    cell(3, "stopped", 99.0),
    cell(4, "failed", None, epoch=0, error="the loss is not finite"),
    cell(5, "planned", None, epoch=0),
]


def made(cells: list[Cell] = CELLS, planned: int = 9, name: str = "search") -> Experiment:
    settings = tuple(
        Setting(name=c.setting, label=c.setting, changes={LAMBDA: c.number / 8}) for c in cells
    )
    return Experiment(
        kind="sweep",
        name=name,
        metric="test/top1",
        mode="max",
        planned=planned,
        settings=settings,
        cells=tuple(cells),
    )


def lines(experiment: Experiment, width: int = 100, height: int = 30) -> list[str]:
    console = Console(width=width, height=height)
    with console.capture() as capture:
        console.print(drawing(experiment, Pace(), width, height))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_a_cell_is_a_line_and_reasons_stand_below() -> None:
    title, head, running, *others, reason = lines(made())
    assert title == "search: cell 5 of 9, 1 running, 1 stopped, 1 failed"
    assert head.split() == ["ega.weight", "epoch", "test/top1", "left"]
    assert running.split() == ["2", "0.25", "12/60", "50", "running"]
    assert [line.split() for line in others] == [
        ["1", "0.125", "60/60", "92.5", "best"],
        ["0", "0", "60/60", "90", "done"],
        ["4", "0.5", "0/60", "failed"],
        ["3", "0.375", "3/60", "99", "stopped"],
        ["5", "0.625", "0/60", "planned"],
    ]
    assert reason == "4 (s4, seed 0): the loss is not finite"


def test_what_looks_like_markup_is_shown() -> None:
    """rich refuses a closing tag that nothing opened."""
    found = lines(made([cell(0, "failed", None, error="no [/student] in [red] x")]))
    assert found[-1].endswith("no [/student] in [red] x")


def test_a_hundred_cells_with_long_errors_fit_a_terminal() -> None:
    states: list[State] = ["running", "done", "failed", "planned", "stopped"]
    error = "what could not be done, and why, at length; " * 9
    cells = [
        cell(n, states[n % 5], float(n), error=error if n % 5 == 2 else None) for n in range(100)
    ]
    found = lines(made(cells, planned=100))
    assert len(found) <= 29
    assert max(map(len, found)) <= 100
    assert any(line.startswith("and ") and line.endswith(" more") for line in found)
    assert sum(line.endswith("…") for line in found) == 4


def test_long_settings_give_way_to_what_is_measured() -> None:
    path, long = "distill.objective", {"kd": {"weight": 0.123456789, "temperature": 4.0625}}
    cells = [cell(n, "running", 70.125 + n, epoch=12) for n in range(3)]
    changes = {path: long, "distill.student": {"name": "a_network_with_a_name_that_is_long"}}
    settings = [Setting(name=f"s{n}", label="", changes={**changes, "n": n}) for n in range(3)]
    whole = made(cells).model_copy(update={"settings": tuple(settings)})
    for width in (60, 100):
        title, head, *rows = lines(whole, width)
        assert head.split()[-3:] == ["epoch", "test/top1", "left"]
        assert [row.split()[-3:] for row in rows] == [
            ["12/60", f"{70.125 + n:.4g}", "running"] for n in range(3)
        ]
        assert all("…" in row for row in rows)
        assert max(map(len, [title, head, *rows])) <= width


def test_a_comparison_shows_variants_and_seeds() -> None:
    cells = [cell(n, "running", None, seed=n) for n in range(2)]
    experiment = made(cells, 2).model_copy(update={"kind": "comparison"})
    head = lines(experiment)[1]
    assert head.split()[:2] == ["variant", "seed"]


def test_time_left_is_that_of_all_that_is_planned() -> None:
    now = [0.0]
    pace = Pace(lambda: now[0])
    one = cell(0, "running", None, epoch=0, epochs=10)
    pace.see(one)
    assert pace.of(one) is None
    now[0] = 20.0
    later = one.model_copy(update={"epoch": 2})
    pace.see(later)
    assert pace.of(later) == 80.0
    # Eight epochs of this one, and nine cells of ten.
    assert pace.left(made([later], planned=10)) == 10 * (8 + 90)
    assert heading(made([later], planned=10), pace) == (
        "search: cell 1 of 10, 1 running, 16:20 left"
    )


def test_the_best_come_after_those_that_run() -> None:
    assert [c.number for c in shown(made(), 3)] == [2, 1, 0]
    least = made().model_copy(update={"mode": "min"})
    assert [c.number for c in shown(least, 3)] == [2, 0, 1]


def test_the_table_is_gone_when_the_experiment_is_over() -> None:
    console = Console(width=100, height=30, force_terminal=True)
    with console.capture() as capture, LiveTable(console) as live:
        live.show(made())
    assert "search: cell 5 of 9" in capture.get()
    # The cursor is back above it, and the lines are erased.
    assert capture.get().rstrip().endswith("\x1b[2K") or "\x1b[1A" in capture.get()
