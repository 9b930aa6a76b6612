"""The record of an experiment: on disk whenever something changes, and true when nothing runs."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from egapipe.pipeline.results.experiment import Cell, Experiment, Setting, read_experiment
from egapipe.pipeline.results.runs import RunFolder
from egapipe.stages.experiment.ledger import Ledger

METRIC = "test/top1"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Three planned cells, of which nothing is done."""
    cells = [Cell(number=n, setting="s", seed=n, state="planned", epochs=4) for n in range(3)]
    experiment = Experiment(
        kind="sweep",
        name="x",
        metric=METRIC,
        mode="max",
        planned=3,
        settings=(Setting(name="s", label="s"),),
        cells=tuple(cells),
    )
    return Ledger(RunFolder(tmp_path), experiment, lambda run: 90.0)


def written(ledger: Ledger) -> Experiment:
    return read_experiment(ledger.folder).experiment


def finish(ledger: Ledger, number: int) -> None:
    run = RunFolder(ledger.folder.path / str(number))
    run.path.mkdir()
    run.write_json("summary.json", {"train_seconds": 2.0})
    ledger.finished(number, run)


def test_an_interrupted_experiment_has_nothing_that_runs(ledger: Ledger) -> None:
    with suppress(KeyboardInterrupt), ledger.alive():
        assert written(ledger).beat is not None
        ledger.change(0, state="running")
        ledger.epoch(0, 0, {METRIC: 10.0})
        ledger.change(1, state="running")
        finish(ledger, 0)
        ledger.epoch(1, 1, {METRIC: 20.0})
        raise KeyboardInterrupt
    left = written(ledger)
    assert (left.beat, left.finished, left.concurrent) == (None, False, 2)
    assert [(c.state, c.epoch, c.value) for c in left.cells] == [
        ("done", 4, 90.0),
        ("planned", 2, 20.0),
        ("planned", 0, None),
    ]
    assert left.counts["running"] == 0


def test_one_that_is_killed_says_what_ran_and_when_it_last_lived(ledger: Ledger) -> None:
    ledger.set(beat=5.0)
    ledger.change(0, state="running")
    left = written(ledger)
    assert (left.beat, left.cells[0].state, left.finished) == (5.0, "running", False)


def test_it_is_finished_when_all_are_over_and_a_failed_one_may_come_again(ledger: Ledger) -> None:
    with ledger.alive():
        finish(ledger, 0)
        ledger.change(1, state="failed", error="no")
        ledger.change(2, state="stopped")
    left = written(ledger)
    assert left.finished
    assert all(cell.ended for cell in left.cells)
    with ledger.alive():
        assert not written(ledger).finished


def test_listeners_are_told_of_states_and_epochs(ledger: Ledger) -> None:
    told: list[str] = []

    class Listening:
        def changed(self, experiment: Experiment, cell: Cell) -> None:
            told.append(f"{cell.number} {cell.state} of {experiment.planned}")

        def epoch(self, cell: Cell, epoch: int, metrics: Mapping[str, float]) -> None:
            told.append(f"{cell.number} epoch {epoch}: {metrics[METRIC]:g}")

    ledger.listen(Listening())
    ledger.change(2, state="running")
    ledger.change(2, state="running")
    ledger.epoch(2, 0, {METRIC: float("nan")})
    assert told == ["2 running of 3", "2 epoch 0: nan"]
    assert written(ledger).cells[2].value is None
