"""Variants side by side: the same store, the same seeds, a table of paired differences."""

import math
from pathlib import Path

import pytest
import torch

from egapipe.pipeline.config import load_config
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.runs import RunFolder
from egapipe.stages import compare, extract
from egapipe.stages.compare import Cell, ComparisonFolder
from egapipe.stages.compare.command import table_lines
from egapipe.stages.compare.table import half_width, table


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


def test_every_cell_is_trained_once_and_the_table_is_of_all(small: list[str]) -> None:
    config = load_config("quickstart", small)
    first = compare.run(config)
    cells = {(cell.variant, cell.seed): cell for cell in first.cells}
    assert {cell.student for cell in first.cells} == {"digits_cnn"}
    assert cells.keys() == {(v, s) for v in ("ce", "ega") for s in (0, 1)}
    before = {cell.run: (cell.run / "summary.json").stat().st_mtime_ns for cell in first.cells}
    assert len(before) == 4
    again = compare.run(config)
    assert before == {c.run: (c.run / "summary.json").stat().st_mtime_ns for c in again.cells}
    assert first.rows == again.rows
    objectives = {key: RunFolder(cell.run).summary()["objective"] for key, cell in cells.items()}
    assert objectives["ce", 0] == {}
    assert objectives["ega", 0].keys() == {"ega"}
    lines = table_lines(first)
    assert any(line.startswith("ce ") for line in lines)
    assert sum(line.startswith("run: ") for line in lines) == 4


def test_a_cell_that_is_missing_is_trained_and_no_other(small: list[str]) -> None:
    config = load_config("quickstart", small)
    first = compare.run(config)
    gone, *kept = first.cells
    (gone.run / "summary.json").unlink()
    before = {cell.run: (cell.run / "summary.json").stat().st_mtime_ns for cell in kept}
    again = compare.run(config)
    assert again.cells[0].top1 == gone.top1
    assert before == {c.run: (c.run / "summary.json").stat().st_mtime_ns for c in again.cells[1:]}


def test_students_stand_beside_each_other(small: list[str]) -> None:
    students = "compare.students={digits_cnn: {}, resnet8: {distill.head.dim: 32}}"
    report = compare.run(load_config("quickstart", [*small, students, "compare.seeds=[0]"]))
    assert [(row.student, row.variant) for row in report.rows] == [
        ("digits_cnn", "ce"),
        ("digits_cnn", "ega"),
        ("resnet8", "ce"),
        ("resnet8", "ega"),
    ]
    resnet = RunFolder(report.cells[2].run)
    assert resnet.config().distill.head.dim == 32
    markdown = (report.folder / "table.md").read_text("utf-8").splitlines()
    assert markdown[0] == "| top-1 % | digits_cnn | resnet8 |"
    assert [line.split(" | ")[0] for line in markdown[2:]] == ["| ce", "| ega"]
    assert sum("against ce" in line for line in table_lines(report)) == 2


def test_variants_begin_with_the_same_weights_and_see_the_same_batches(small: list[str]) -> None:
    from egapipe.stages.compare.comparison import plan
    from egapipe.stages.distill.setup import prepare
    from egapipe.stages.distill.world import World

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
    record = ComparisonFolder(report.folder).read()
    assert [row["gain"] for row in record["rows"]] == [row.gain for row in report.rows]
    assert [(report.folder / cell["run"]).resolve() for cell in record["cells"]] == [
        cell.run.resolve() for cell in report.cells
    ]
    lines = (report.folder / "cells.csv").read_text("utf-8").splitlines()
    assert lines[0] == "student,variant,seed,run,top1,seconds"
    assert len(lines) == 1 + len(report.cells)
    with pytest.raises(UsageError, match="not the folder of a comparison"):
        ComparisonFolder(report.cells[0].run).read()


def test_the_difference_is_paired_by_seed() -> None:
    tops = {("ce", 0): 50.0, ("ce", 1): 60.0, ("ega", 0): 52.0, ("ega", 1): 62.0}
    cells = [Cell("s", v, seed, Path("run"), top1, 1.0) for (v, seed), top1 in tops.items()]
    ce, ega = table(cells)
    assert (ce.mean, ce.gain) == (55.0, 0.0)
    assert (ega.mean, ega.gain, ega.gain_std, ega.low, ega.high) == (57.0, 2.0, 0.0, 2.0, 2.0)
    assert ega.std == pytest.approx(50**0.5)
    assert ega.pairs == 2


def test_the_interval_is_students_t() -> None:
    # Tables of Student's t: 4.3027 at two degrees of freedom, 2.9200 for the 90 % interval.
    assert half_width([1.0, 2.0, 3.0], 0.95) == pytest.approx(4.3027 / 3**0.5, rel=1e-4)
    assert half_width([1.0, 2.0, 3.0], 0.90) == pytest.approx(2.9200 / 3**0.5, rel=1e-4)
    assert math.isnan(half_width([1.0], 0.95))


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["compare.variants={}"], "compare.variants"),
        (["compare.variants={ce: {distill.objectives: {}}}"], "distill.objectives"),
        (["compare.students={resnet8: {distill.momentun: 0}}"], "momentum"),
    ],
)
def test_a_variant_that_does_not_fit_is_refused_before_any_training(
    small: list[str], tmp_path: Path, sets: list[str], said: str
) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        compare.run(load_config("quickstart", [*small, f"runs={tmp_path / 'runs'}", *sets]))
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []
