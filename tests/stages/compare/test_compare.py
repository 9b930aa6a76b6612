"""Variants side by side: the same store, the same seeds, a table of paired differences."""

import threading
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from egapipe.pipeline.config import load_config
from egapipe.pipeline.errors import StoreError, TrainingError, UsageError
from egapipe.pipeline.results.experiment import Cell, Experiment, Setting, read_experiment
from egapipe.pipeline.results.runs import RunFolder
from egapipe.pipeline.results.standing import standings
from egapipe.pipeline.terminal.progress import OpenProgress, Progress, silent_progress
from egapipe.stages import compare, extract
from egapipe.stages.compare.command import table_lines
from egapipe.stages.compare.comparison import plan
from egapipe.stages.compare.table import percent, separation
from egapipe.stages.distill.folder import training_folder
from tests.stages.distill.test_training import assert_same_weights


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("compare")
    sets = [
        f"store.url={folder / 'stores'}",
        f"runs={folder / 'runs'}",
        "views.count=1",
        "distill.epochs=1",
        "distill.threads=1",
        "compare.seeds=[0, 1]",
    ]
    config = load_config("quickstart", sets)
    for split in config.splits():
        extract.run(config, split=split, local=True)
    return sets


def runs_of(report: compare.CompareReport) -> dict[tuple[str, int], RunFolder]:
    """Label and seed -> run folder of what is done."""
    folder, experiment = RunFolder(Path(report.folder)), report.experiment
    return {
        (experiment.setting(cell.setting).label, cell.seed): folder.beside(str(cell.run))
        for cell in report.done
    }


def times(report: compare.CompareReport) -> list[int]:
    return [(run.path / "summary.json").stat().st_mtime_ns for run in runs_of(report).values()]


def test_every_cell_is_trained_once_and_the_table_is_of_all(small: list[str]) -> None:
    config = load_config("quickstart", small)
    first = compare.run(config)
    runs = runs_of(first)
    assert {setting.group for setting in first.experiment.settings} == {"digits_cnn"}
    assert runs.keys() == {(v, s) for v in ("ce", "ega") for s in (0, 1)}
    before = times(first)
    again = compare.run(config)
    assert before == times(again)
    assert first.rows == again.rows
    assert first.experiment.cells == again.experiment.cells
    assert runs["ce", 0].summary()["objective"] == {}
    assert runs["ega", 0].summary()["objective"].keys() == {"ega"}
    assert any(line.startswith("ce ") for line in table_lines(first))


def test_a_cell_that_is_missing_is_trained_and_no_other(small: list[str]) -> None:
    config = load_config("quickstart", small)
    first = compare.run(config)
    gone, *kept = runs_of(first).values()
    (gone.path / "summary.json").unlink()
    before = [(run.path / "summary.json").stat().st_mtime_ns for run in kept]
    again = compare.run(config)
    assert [cell.value for cell in again.done] == [cell.value for cell in first.done]
    assert before == times(again)[1:]


@pytest.mark.slow  # Ray, whose trials wait for torch in their processes
@pytest.mark.usefixtures("ray_cluster")
def test_two_at_once_have_the_weights_that_they_have_one_by_one(
    small: list[str], tmp_path: Path
) -> None:
    sets = [*small, "compare.seeds=[5]"]
    together = [*sets, f"runs={tmp_path}"]
    alone = compare.run(load_config("quickstart", sets))
    report = compare.run(load_config("quickstart", [*together, "compare.max_concurrent=2"]))
    assert [cell.state for cell in report.experiment.cells] == ["done"] * 2
    assert report.experiment.finished
    assert report.experiment.concurrent <= 2
    assert [row.values for row in report.rows] == [row.values for row in alone.rows]
    for key, run in runs_of(alone).items():
        assert_same_weights(run.path, runs_of(report)[key].path)
    # How many run at once makes no other comparison, and no other run.
    again = compare.run(load_config("quickstart", together))
    assert again.folder == report.folder
    assert again.experiment.cells == report.experiment.cells


@pytest.mark.parametrize(
    ("weights", "key", "said"),
    [
        ("ema", "ema_top1", "top-1 on the test images of the moving average, "),
        ("best", "best_top1", "top-1 on the test images of the best checkpoint, "),
    ],
)
def test_the_weights_that_are_asked_for_are_compared(
    small: list[str], weights: str, key: str, said: str
) -> None:
    sets = ["compare.seeds=[0]", "distill.epochs=2", "distill.ema_decay=0.5"]
    report = compare.run(load_config("quickstart", [*small, *sets, f"compare.weights={weights}"]))
    summaries = [run.summary()[key] for run in runs_of(report).values()]
    assert [cell.value for cell in report.done] == summaries
    assert table_lines(report)[0].startswith(said)
    assert read_experiment(str(report.folder)).experiment.weights == weights


def test_an_average_that_nobody_keeps_is_not_compared(small: list[str]) -> None:
    with pytest.raises(UsageError, match=r"compare\.weights is ema, but .*distill\.ema_decay"):
        compare.run(load_config("quickstart", [*small, "compare.weights=ema"]))


def test_students_stand_beside_each_other(small: list[str]) -> None:
    students = "compare.students={digits_cnn: {}, resnet8: {distill.head.dim: 32}}"
    report = compare.run(load_config("quickstart", [*small, students, "compare.seeds=[0]"]))
    assert [(row.setting.group, row.setting.label) for row in report.rows] == [
        ("digits_cnn", "ce"),
        ("digits_cnn", "ega"),
        ("resnet8", "ce"),
        ("resnet8", "ega"),
    ]
    resnet = RunFolder(Path(report.folder)).beside(str(report.done[2].run))
    assert resnet.config().distill.head.dim == 32
    markdown = (Path(report.folder) / "table.md").read_text("utf-8").splitlines()
    assert markdown[0] == "| top-1 % | digits_cnn | resnet8 |"
    assert [line.split(" | ")[0] for line in markdown[2:]] == ["| ce", "| ega"]
    assert sum("against ce" in line for line in table_lines(report)) == 2


def test_variants_begin_with_the_same_weights_and_see_the_same_batches(small: list[str]) -> None:
    from egapipe.stages.distill.setup import prepare
    from egapipe.stages.distill.workers.world import World

    config = load_config("quickstart", [*small, "compare.variants.kd={distill.objective: {kd: 1}}"])
    jobs = {
        variant: prepare(tree, World.alone(torch.device("cpu")))
        for (_, variant, seed), tree in plan(config).items()
        if seed == 1
    }
    assert jobs.keys() == {"ce", "ega", "kd"}
    first, *others = jobs.values()
    weights = first.model.student.state_dict()
    batches = [batch for batch, _ in zip(first.loader.epoch(0), range(3), strict=False)]
    for other in others:
        for name, value in other.model.student.state_dict().items():
            assert torch.equal(value, weights[name])
        for mine, theirs in zip(batches, other.loader.epoch(0), strict=False):
            assert torch.equal(mine.images, theirs.images)
            assert torch.equal(mine.rows, theirs.rows)


def test_the_folder_holds_what_the_report_says(small: list[str]) -> None:
    report = compare.run(load_config("quickstart", small))
    recorded = read_experiment(str(report.folder))
    assert recorded.experiment == report.experiment
    assert recorded.experiment.finished
    assert standings(recorded.experiment) == report.rows
    lines = (Path(report.folder) / "cells.csv").read_text("utf-8").splitlines()
    assert lines[0] == "student,variant,seed,run,top1,seconds"
    assert len(lines) == 1 + len(report.done)


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["compare.variants={}"], "compare.variants"),
        (["compare.variants={ce: {distill.objectives: {}}}"], "distill.objectives"),
        (["compare.students={resnet8: {distill.momentun: 0}}"], "momentum"),
        (["dataset.test=null"], "no dataset.test"),
        (
            ["compare.students={digits_cnn: {}, resnet8: {distill.student.args: {maps: 3}}}"],
            "student resnet8, variant ce: .*maps",
        ),
        (["compare.variants.grids={distill.objective.sp.features: grid}"], "variant grids: .*grid"),
        (["compare.variants.again={distill.objective: {}}"], "ce and .* again are the same"),
    ],
)
def test_a_variant_that_does_not_fit_is_refused_before_any_training(
    small: list[str], tmp_path: Path, sets: list[str], said: str
) -> None:
    with pytest.raises((UsageError, StoreError), match=said) as raised:
        compare.run(load_config("quickstart", [*small, f"runs={tmp_path / 'runs'}", *sets]))
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


class StoppedError(Exception):
    """The user's interrupt, at a cell of this name."""


def stopping_at(name: str) -> OpenProgress:
    def opened(title: str, *rest: Any, **options: Any) -> AbstractContextManager[Progress]:
        if title.endswith(f": {name}"):
            raise StoppedError
        return silent_progress(title, *rest, **options)

    return opened


def test_an_unfinished_comparison_says_how_far_it_is(small: list[str], tmp_path: Path) -> None:
    """One variant fails at once, and it is stopped before the last of four cells."""
    variants = "{ce: {distill.objective: {}}, wild: {distill.lr: 1.0e+30}}"
    sets = [*small, f"runs={tmp_path}", f"compare.variants={variants}"]
    config = load_config("quickstart", sets)
    with pytest.raises(StoppedError):
        compare.run(config, progress=stopping_at("wild seed 1"))
    [path] = tmp_path.glob("*/compare-*")
    experiment = read_experiment(str(path)).experiment
    assert [(cell.setting, cell.seed, cell.state) for cell in experiment.cells] == [
        ("ce", 0, "done"),
        ("wild", 0, "failed"),
        ("ce", 1, "done"),
        ("wild", 1, "planned"),
    ]
    assert not experiment.finished
    assert experiment.beat is None
    assert (path / "table.md").read_text("utf-8").splitlines()[3:] == [
        "| wild | 0 of 2 |",
        "",
        "unfinished: 2 of 4 trainings done, 1 failed",
    ]
    ended = compare.run(config)
    lines = table_lines(ended)
    assert lines[1] == "unfinished: 2 of 4 trainings done, 2 failed"
    assert sum("wild seed" in line and "not finite" in line for line in lines) == 2
    with pytest.raises(TrainingError, match=r"all trainings failed: .*not finite"):
        compare.run(load_config("quickstart", [*sets, "compare.variants={w: {distill.lr: 1e30}}"]))


def test_the_heading_says_which_cell_of_how_many(small: list[str], tmp_path: Path) -> None:
    titles: list[str] = []

    def opened(title: str, *rest: Any, **options: Any) -> AbstractContextManager[Progress]:
        titles.append(title)
        return silent_progress(title, *rest, **options)

    compare.run(load_config("quickstart", [*small, f"runs={tmp_path}"]), progress=opened)
    assert titles[0] == "cell 1 of 4: ce seed 0"
    assert titles[3].startswith("cell 4 of 4, ")
    assert titles[3].endswith(" left: ega seed 1")


def test_two_processes_do_not_run_one_comparison(small: list[str], tmp_path: Path) -> None:
    config = load_config("quickstart", [*small, f"runs={tmp_path}"])
    told: list[str] = []

    def opened(title: str, *rest: Any, **options: Any) -> AbstractContextManager[Progress]:
        if not told:
            told.append("")
            with pytest.raises(TrainingError, match="being trained by another process") as raised:
                compare.run(config)
            told[0] = str(raised.value)
        return silent_progress(title, *rest, **options)

    compare.run(config, progress=opened)
    assert "compare-" in told[0]


def test_a_training_of_another_comparison_is_waited_for(small: list[str], tmp_path: Path) -> None:
    """Both have the cell `ce`: it comes last where the other one trains it."""
    config = load_config("quickstart", [*small, f"runs={tmp_path}", "compare.seeds=[0]"])
    [ce] = [tree for key, tree in plan(config).items() if key[1] == "ce"]
    order: list[str] = []
    with ExitStack() as held:
        held.enter_context(training_folder(ce).exclusive())

        def opened(title: str, *rest: Any, **options: Any) -> AbstractContextManager[Progress]:
            order.append(title)
            held.close()
            return silent_progress(title, *rest, **options)

        report = compare.run(config, progress=opened)
    assert [title.rpartition(": ")[2] for title in order] == ["ega seed 0", "ce seed 0"]
    assert len(report.done) == 2


@pytest.mark.slow  # Ray, whose trials wait for torch in their processes
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("ray_cluster")
def test_where_several_run_at_once_it_is_waited_for_too(small: list[str], tmp_path: Path) -> None:
    """The other one ends when everything else has, and then what it has left is trained."""
    sets = [*small, f"runs={tmp_path}", "compare.seeds=[0, 1]", "compare.max_concurrent=2"]
    config = load_config("quickstart", sets)
    held, states = ExitStack(), list[tuple[str, ...]]()
    held.enter_context(training_folder(next(iter(plan(config).values()))).exclusive())

    def watch(experiment: Experiment) -> None:
        states.append(tuple(cell.state for cell in experiment.cells))
        if states[-1][1:] == ("done", "done", "done"):
            held.close()

    with held:
        report = compare.run(config, watch=watch)
    assert len(report.done) == 4
    before = [state[0] for state in states if state[1:] != ("done", "done", "done")]
    assert set(before) == {"planned"}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("ray_cluster")
def test_what_another_process_has_trained_meanwhile_is_taken(
    small: list[str], tmp_path: Path
) -> None:
    """One that takes a training between the look at it and its beginning, as two that start at the
    same moment do."""
    sets = [*small, f"runs={tmp_path}", "compare.seeds=[0, 1]"]
    together = load_config("quickstart", [*sets, "compare.max_concurrent=2"])
    alone = load_config("quickstart", [*sets, "compare.seeds=[0]"])
    other = threading.Thread(target=compare.run, args=(alone,))
    other.start()
    report = compare.run(together)
    other.join()
    assert len(report.done) == 4
    mine, whole = (
        {key: run.path.name for key, run in runs_of(of).items()}
        for of in (compare.run(alone), report)
    )
    assert mine.items() <= whole.items()


def made(tops: dict[tuple[str, int], float], planned: int = 0) -> Experiment:
    """An experiment whose cells are done with these values, by variant and seed."""
    names = dict.fromkeys(name for name, _ in tops)
    return Experiment(
        kind="comparison",
        name="made",
        metric="test/top1",
        mode="max",
        baseline="ce" if "ce" in names else next(iter(names)),
        planned=planned or len(tops),
        settings=tuple(Setting(name=n, label=n, group="s") for n in names),
        cells=tuple(
            Cell(
                number=number,
                setting=name,
                seed=seed,
                state="done",
                epochs=1,
                value=value,
                seconds=1.0,
            )
            for number, ((name, seed), value) in enumerate(tops.items())
        ),
    )


def test_an_interval_that_says_nothing_is_printed_as_words() -> None:
    tops = {("ce", 0): 50.0, ("ce", 1): 52.0, ("wide", 0): 60.0, ("wide", 1): 93.0}
    tops |= {("close", 0): 51.0, ("close", 1): 53.5, ("equal", 0): 51.1, ("equal", 1): 53.1}
    experiment = made(tops)
    report = compare.CompareReport(Path("x"), experiment, standings(experiment))
    lines = table_lines(report)
    wide, close, equal = (
        next(line for line in lines if line.startswith(name)) for name in ("wide", "close", "equal")
    )
    assert "  2 pairs: too few  " in wide
    assert " to " not in wide
    assert "-1.93 to +4.43" in close
    # The same difference with both seeds, as ten test images may give.
    assert "  2 equal pairs: too few images  " in equal
    assert "*" not in equal


def test_one_sentence_says_what_separates_from_what() -> None:
    tops = {("ce", 0): 50.0, ("ce", 1): 60.0, ("ce", 2): 55.0}
    tops |= {("sure", 0): 61.0, ("sure", 1): 71.1, ("sure", 2): 65.9}
    tops |= {("close", 0): 60.0, ("close", 1): 72.0, ("close", 2): 65.0}
    experiment = made(tops)
    said = separation(experiment, standings(experiment))
    assert said == "sure is ahead with 66.00 ± 5.05 %, and separates from ce, not from close."
    alone = made({("ce", 0): 50.0, ("ega", 0): 60.0})
    assert separation(alone, standings(alone)).endswith("one seed separates nothing.")
    assert separation(made({("ce", 0): 50.0}), []) == ""


def test_thirteen_variants_fit_a_terminal_of_100_columns() -> None:
    names = [f"{i:02}-of-variants-with-a-long-name" for i in range(13)]
    rng = np.random.default_rng(0)
    tops = {(name, seed): float(rng.normal(70, 1)) for name in names for seed in range(3)}
    experiment = made(tops)
    report = compare.CompareReport(Path("x"), experiment, standings(experiment))
    lines = table_lines(report)
    table = [line for line in lines if "-of-variants-" in line and "separates" not in line]
    assert len(table) == 13
    assert max(map(len, table)) <= 100
    assert len(lines) <= 30


@given(st.floats(0.001, 0.99999))
def test_a_level_is_printed_as_it_is_given(share: float) -> None:
    assert float(percent(share).removesuffix(" %")) == pytest.approx(100 * share, rel=1e-9)


def test_levels_for_people() -> None:
    assert [percent(share) for share in (0.95, 0.9983, 0.999, 0.5)] == [
        "95 %",
        "99.83 %",
        "99.9 %",
        "50 %",
    ]
