"""What a sweep leaves behind, without running one."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from egapipe.pipeline.config import Config, load_config
from egapipe.pipeline.results.experiment import (
    Cell,
    Experiment,
    State,
    settings_of,
    write_experiment,
)
from egapipe.stages.experiment.slots import Slots
from egapipe.stages.sweep.folder import SweepFolder
from egapipe.stages.sweep.report import (
    SweepReport,
    finish,
    make_report,
    read_report,
    write_report,
)

OBJECTIVE, LR = "distill.objective", "distill.lr"
SLOTS = Slots("cpu", cpus=3, gpus=0.0, workers=0, concurrent=2)
TRIALS: list[tuple[dict[str, object], State, float | None]] = [
    ({OBJECTIVE: {"kd": 1.0}, LR: 1}, "done", 50.0),
    ({OBJECTIVE: {}, LR: 0.5}, "done", 70.0),
    ({LR: 0.25}, "stopped", 99.0),
    ({OBJECTIVE: {"ega": 1.0}}, "failed", None),
]


@pytest.fixture
def config() -> Config:
    space = f"{{{OBJECTIVE}: {{choice: [{{}}]}}, {LR}: {{uniform: [0, 1]}}}}"
    return load_config("quickstart", [f"sweep.space={space}", "distill.threads=null"])


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    return SweepFolder(tmp_path / "sweep-1")


@pytest.fixture
def report(config: Config, folder: SweepFolder) -> SweepReport:
    folder.start(config)
    cells, settings = [], settings_of([changes for changes, _, _ in TRIALS])
    for number, (changes, state, value) in enumerate(TRIALS):
        run = folder.trial(number, changes)
        run.path.mkdir()
        if value is not None:
            run.metrics.write_text(json.dumps({"epoch": 4, "test/top1": value}) + "\n")
        cells.append(
            Cell(
                number=number,
                setting=settings[number].name,
                seed=0,
                state=state,
                epoch=5,
                epochs=60,
                value=value,
                run=folder.relative(run),
                error="it is broken" if state == "failed" else None,
            )
        )
    experiment = Experiment(
        kind="sweep",
        name="quickstart",
        metric="test/top1",
        mode="max",
        planned=4,
        concurrent=2,
        seconds=1.5,
        settings=tuple(settings),
        cells=tuple(cells),
    )
    write_experiment(folder, experiment)
    made = make_report(config, folder, experiment)
    write_report(config, folder, made, SLOTS)
    finish(config, folder, made)
    return made


def test_a_report_is_read_as_it_was_written(report: SweepReport, folder: SweepFolder) -> None:
    assert folder.finished
    assert read_report(folder) == replace(report, finished_before=True)


def test_the_best_is_the_best_that_finished(report: SweepReport) -> None:
    assert report.best == report.trials[1]
    assert [trial.number for trial in report.ranked()] == [1, 0, 2, 3]
    lowest = replace(report, mode="min")
    assert [trial.number for trial in lowest.ranked()] == [0, 1, 2, 3]


def test_settings_of_every_sort_are_in_both_tables(
    report: SweepReport, folder: SweepFolder
) -> None:
    table = pq.read_table(folder.path / "trials.parquet").to_pydict()
    assert table[OBJECTIVE] == ['{"kd": 1.0}', "{}", None, '{"ega": 1.0}']
    assert table[LR] == [1.0, 0.5, 0.25, None]
    assert table["test/top1"] == [50.0, 70.0, 99.0, None]
    assert table["error"] == [None, None, None, "it is broken"]
    with (folder.path / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row[OBJECTIVE] for row in rows] == ['{"kd": 1.0}', "{}", "", '{"ega": 1.0}']
    assert [row["run"] for row in rows] == [
        str(trial.run.relative_to(folder.path)) for trial in report.trials
    ]


def test_the_best_configuration_has_the_threads_that_the_trial_had(report: SweepReport) -> None:
    text = report.best_config.read_text()
    assert text.startswith("# Trial 1 of sweep-1: test/top1 70.\n")
    config = load_config(str(report.best_config))
    assert config.distill.lr == 0.5
    assert config.distill.objective.model_dump(exclude_none=True) == {}
    assert (config.distill.threads, config.distill.device) == (3, "auto")
    assert config.sweep.space == {}
