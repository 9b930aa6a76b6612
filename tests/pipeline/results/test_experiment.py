"""The record that everybody reads: whole, typed, and of older folders too."""

import json
import math
import shutil
from pathlib import Path

import pytest

from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.results.experiment import (
    RECORD,
    Cell,
    Experiment,
    Setting,
    State,
    is_experiment,
    read_experiment,
    settings_of,
    write_experiment,
)
from egapipe.pipeline.results.runs import RunFolder
from tests.golden_copy import GOLDEN


def cell(number: int, setting: str, seed: int, state: State, value: float | None = None) -> Cell:
    return Cell(number=number, setting=setting, seed=seed, state=state, epochs=4, value=value)


def made() -> Experiment:
    settings = tuple(
        Setting(name=f"{student} {variant}", label=variant, group=student)
        for student in ("a", "b")
        for variant in ("ce", "ega")
    )
    return Experiment(
        kind="comparison",
        name="grid",
        metric="test/top1",
        mode="max",
        baseline="ce",
        planned=5,
        settings=settings,
        cells=(
            cell(0, "a ce", 0, "done", 50.0),
            cell(1, "a ega", 0, "done", math.nan),
            cell(2, "a ega", 1, "stopped", 40.0),
            cell(3, "b ce", 0, "running"),
        ),
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert not is_experiment(folder)
    write_experiment(folder, made())
    assert is_experiment(folder)
    recorded = read_experiment(str(tmp_path))
    assert recorded.experiment == made()
    assert recorded.run(recorded.experiment.cells[0]) is None


def test_settings_stand_in_their_groups_with_their_values() -> None:
    experiment = made()
    assert {name: [s.label for s in of] for name, of in experiment.groups.items()} == {
        "a": ["ce", "ega"],
        "b": ["ce", "ega"],
    }
    ce, ega = experiment.groups["a"]
    assert experiment.values_of(ce) == {0: 50.0}
    # One is not finite, one was ended early.
    assert experiment.values_of(ega) == {}
    assert experiment.baseline_of(ega) == ce
    assert experiment.baseline_of(ce) is None
    assert experiment.counts == {"planned": 1, "running": 1, "stopped": 1, "failed": 0, "done": 2}


@pytest.mark.parametrize(
    "content",
    ["[", "{}", '{"format": 1, "kind": "sweep"}', '{"cells": 3}'],
)
def test_a_damaged_record_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / RECORD).write_text(content, "utf-8")
    with pytest.raises(UsageError, match="damaged") as raised:
        read_experiment(str(tmp_path))
    assert "\n" not in str(raised.value)


def test_a_cell_without_its_setting_is_damage(tmp_path: Path) -> None:
    write_experiment(RunFolder(tmp_path), made())
    content = json.loads((tmp_path / RECORD).read_text("utf-8"))
    content["settings"] = content["settings"][1:]
    (tmp_path / RECORD).write_text(json.dumps(content), "utf-8")
    with pytest.raises(UsageError, match="no setting is called a ce"):
        read_experiment(str(tmp_path))


def test_a_later_record_is_read_as_far_as_it_is_known(tmp_path: Path) -> None:
    write_experiment(RunFolder(tmp_path), made())
    content = json.loads((tmp_path / RECORD).read_text("utf-8"))
    content["news"] = content["cells"][0]["news"] = 1
    (tmp_path / RECORD).write_text(json.dumps(content), "utf-8")
    assert read_experiment(str(tmp_path)).experiment == made()
    (tmp_path / RECORD).write_text(json.dumps({**content, "format": 2}), "utf-8")
    with pytest.raises(UsageError, match="upgrade egapipe"):
        read_experiment(str(tmp_path))


def test_settings_that_look_alike_have_names_of_their_own() -> None:
    [first, second] = settings_of([{"distill.lr": 0.123412}, {"distill.lr": 0.123413}])
    assert (first.name, second.name) == ("lr 0.1234", "lr 0.1234 (2)")
    assert settings_of([{}])[0].name == "as configured"


def test_a_comparison_of_before_there_was_a_record() -> None:
    [path] = (GOLDEN / "runs/grid").glob("compare-*")
    recorded = read_experiment(str(path))
    experiment = recorded.experiment
    assert (experiment.kind, experiment.baseline, experiment.planned) == ("comparison", "ce", 6)
    assert [setting.name for setting in experiment.settings] == ["ce", "ega", "wild"]
    assert experiment.settings[2].changes == {"distill.lr": 1e30}
    assert experiment.counts == {"planned": 0, "running": 0, "stopped": 0, "failed": 2, "done": 4}
    assert all("not finite" in (c.error or "") for c in experiment.cells if c.state == "failed")
    done = [cell for cell in experiment.cells if cell.state == "done"]
    runs = [recorded.run(cell) for cell in done]
    assert [run.summary()["top1"] for run in runs if run is not None] == [c.value for c in done]
    assert not experiment.finished


def test_a_sweep_of_before_there_was_a_record(tmp_path: Path) -> None:
    [path] = (GOLDEN / "runs/search").glob("sweep-*")
    recorded = read_experiment(str(path))
    experiment = recorded.experiment
    assert (experiment.kind, experiment.metric, experiment.mode) == ("sweep", "test/top1", "max")
    assert [setting.name for setting in experiment.settings] == ["lr 0.01", "lr 0.02", "lr 1e+30"]
    assert experiment.counts == {"planned": 0, "running": 0, "stopped": 0, "failed": 2, "done": 4}
    assert [cell.seed for cell in experiment.cells_of(experiment.settings[0])] == [0, 1]
    assert experiment.finished
    run = recorded.run(experiment.cells[0])
    assert run is not None
    assert run.summary()["top1"] == experiment.cells[0].value

    under_way = tmp_path / path.name
    shutil.copytree(path, under_way)
    (under_way / "summary.json").unlink()
    found = read_experiment(str(under_way)).experiment
    assert not found.finished
    assert [(c.number, c.state, c.value, c.run) for c in found.cells] == [
        (c.number, c.state, c.value, c.run) for c in experiment.cells
    ]
    # Just begun: none of its trials has a folder.
    shutil.rmtree(under_way / "trials")
    (under_way / "trials").mkdir()
    begun = read_experiment(str(under_way)).experiment
    assert (begun.cells, begun.finished) == ((), False)


def test_a_folder_of_something_else_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not the folder of a comparison or sweep"):
        read_experiment(str(tmp_path))
    shutil.copy(GOLDEN / "golden.yaml", tmp_path / "config.yaml")
    (tmp_path / "comparison.json").write_text('{"cells": 3}', "utf-8")
    with pytest.raises(UsageError, match=r"comparison\.json is damaged"):
        read_experiment(str(tmp_path))
