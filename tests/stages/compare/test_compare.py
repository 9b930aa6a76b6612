"""Variants side by side: the same store, the same seeds, a table of paired differences."""

import json
import math
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from egapipe.pipeline.config import load_config
from egapipe.pipeline.errors import StoreError, TrainingError, UsageError
from egapipe.pipeline.mathematics.significance import half_width
from egapipe.pipeline.results.runs import RunFolder
from egapipe.pipeline.terminal.progress import OpenProgress, Progress, silent_progress
from egapipe.stages import compare, extract
from egapipe.stages.compare import Cell, ComparisonFolder
from egapipe.stages.compare.command import table_lines
from egapipe.stages.compare.table import Planned, percent, table


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
    assert [cell.top1 for cell in report.cells] == [
        RunFolder(cell.run).summary()[key] for cell in report.cells
    ]
    assert table_lines(report)[0].startswith(said)
    assert ComparisonFolder(report.folder).recorded()["weights"] == weights


def test_an_average_that_nobody_keeps_is_not_compared(small: list[str]) -> None:
    with pytest.raises(UsageError, match=r"compare\.weights is ema, but .*distill\.ema_decay"):
        compare.run(load_config("quickstart", [*small, "compare.weights=ema"]))


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
    record = ComparisonFolder(report.folder).recorded()
    assert [row["gain"] for row in record["rows"]] == [row.gain for row in report.rows]
    assert [(report.folder / cell["run"]).resolve() for cell in record["cells"]] == [
        cell.run.resolve() for cell in report.cells
    ]
    lines = (report.folder / "cells.csv").read_text("utf-8").splitlines()
    assert lines[0] == "student,variant,seed,run,top1,seconds"
    assert len(lines) == 1 + len(report.cells)
    with pytest.raises(UsageError, match="not the folder of a comparison"):
        ComparisonFolder(report.cells[0].run).recorded()


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
        if title == name:
            raise StoppedError
        return silent_progress(title, *rest, **options)

    return opened


def test_an_unfinished_comparison_says_how_far_it_is(small: list[str], tmp_path: Path) -> None:
    """One variant fails at once, and it is stopped before the last of four cells."""
    variants = "{ce: {distill.objective: {}}, wild: {distill.lr: 1.0e+30}}"
    sets = [*small, f"runs={tmp_path}", f"compare.variants={variants}"]
    config = load_config("quickstart", sets)
    with pytest.raises(StoppedError):
        compare.run(config, progress=stopping_at("digits_cnn wild seed 1"))
    [path] = tmp_path.glob("*/compare-*")
    record = ComparisonFolder(path).recorded()
    states = {(cell["variant"], cell["seed"]): cell["state"] for cell in record["planned"]}
    assert states == {
        ("ce", 0): "done",
        ("wild", 0): "failed",
        ("ce", 1): "done",
        ("wild", 1): "planned",
    }
    assert not record["finished"]
    assert [(row["variant"], row["n"]) for row in record["rows"]] == [("ce", 2)]
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


def test_a_comparison_of_which_nothing_is_done_has_no_page(
    small: list[str], tmp_path: Path
) -> None:
    config = load_config("quickstart", [*small, f"runs={tmp_path}"])
    with pytest.raises(StoppedError):
        compare.run(config, progress=stopping_at("digits_cnn ce seed 0"))
    [path] = tmp_path.glob("*/compare-*")
    with pytest.raises(UsageError, match=r"no training of the comparison .* is done yet"):
        ComparisonFolder(path).recorded()


def made(tops: dict[tuple[str, int], float]) -> list[Cell]:
    return [Cell("s", v, seed, Path("run"), top1, 1.0) for (v, seed), top1 in tops.items()]


def test_every_row_has_its_own_n() -> None:
    tops = {("ce", 0): 50.0, ("ega", 0): 52.0, ("kd", 0): 51.0, ("ce", 1): 60.0, ("ega", 1): 62.5}
    rows = table(made(tops))
    assert [(row.variant, row.n, row.pairs) for row in rows] == [
        ("ce", 2, 2),
        ("ega", 2, 2),
        ("kd", 1, 1),
    ]


def test_a_variant_without_its_baseline_has_no_gain() -> None:
    [row] = table(made({("ega", 0): 52.0}), baseline="ce")
    assert (row.n, row.pairs, row.separates) == (1, 0, False)
    assert math.isnan(row.gain)


def test_the_largest_mean_is_not_marked_where_its_interval_holds_0() -> None:
    tops = {("ce", 0): 50.0, ("ce", 1): 60.0, ("ce", 2): 55.0}
    tops |= {("noisy", 0): 59.0, ("noisy", 1): 58.0, ("noisy", 2): 63.0}
    tops |= {("sure", 0): 51.0, ("sure", 1): 61.1, ("sure", 2): 55.9}
    _, noisy, sure = table(made(tops))
    assert noisy.mean > sure.mean
    assert noisy.low < 0 < noisy.high
    assert (noisy.separates, sure.separates) == (False, True)


def test_an_interval_that_says_nothing_is_printed_as_words() -> None:
    tops = {("ce", 0): 50.0, ("ce", 1): 52.0, ("wide", 0): 60.0, ("wide", 1): 93.0}
    tops |= {("close", 0): 51.0, ("close", 1): 53.5, ("equal", 0): 51.1, ("equal", 1): 53.1}
    cells = made(tops)
    planned = [Planned(cell.student, cell.variant, cell.seed, "done") for cell in cells]
    report = compare.CompareReport(Path("x"), planned, cells, table(cells), None, 0.95)
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


def test_of_many_variants_that_do_nothing_none_is_marked() -> None:
    """At 95 % one in twenty separates by itself: here 40 of them, in 50 comparisons."""
    rng = np.random.default_rng(0)
    alone = corrected = 0
    for _ in range(50):
        noise = rng.normal(70, 1, (41, 5))
        rows = table(made({(f"v{i}", s): float(noise[i, s]) for i in range(41) for s in range(5)}))
        alone += any(row.low > 0 or row.high < 0 for row in rows[1:])
        corrected += any(row.separates for row in rows)
    assert alone > 20
    # 5 % of 50 are 2.5; the differences share a baseline, which makes them fewer.
    assert corrected <= 6


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


def test_a_record_of_an_older_version_is_read(small: list[str], tmp_path: Path) -> None:
    report = compare.run(load_config("quickstart", small))
    file = tmp_path / "comparison.json"
    record = json.loads((report.folder / file.name).read_text("utf-8"))
    new = {"planned", "finished"}, {"n", "p", "separates"}
    old = {key: value for key, value in record.items() if key not in new[0]}
    old["rows"] = [{k: v for k, v in row.items() if k not in new[1]} for row in record["rows"]]
    file.write_text(json.dumps(old), "utf-8")
    assert ComparisonFolder(tmp_path).recorded() == record
    for damaged in ('{"cells": 3}', "[", "{}", '{"cells": [{}]}'):
        file.write_text(damaged, "utf-8")
        with pytest.raises(UsageError, match=r"comparison\.json"):
            ComparisonFolder(tmp_path).recorded()
