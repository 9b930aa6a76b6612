"""Variants side by side: the same store, the same seeds, a table of paired differences."""

from pathlib import Path

import pytest

from egapipe.pipeline.config import load_config
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.runs import RunFolder
from egapipe.stages import compare, extract
from egapipe.stages.compare.command import table_lines
from egapipe.stages.compare.comparison import Cell, table


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


def test_the_difference_is_paired_by_seed() -> None:
    tops = {("ce", 0): 50.0, ("ce", 1): 60.0, ("ega", 0): 52.0, ("ega", 1): 62.0}
    cells = [Cell(v, s, Path("run"), top1, 1.0) for (v, s), top1 in tops.items()]
    ce, ega = table(cells)
    assert (ce.mean, ce.gain) == (55.0, 0.0)
    assert (ega.mean, ega.gain, ega.gain_std) == (57.0, 2.0, 0.0)
    assert ega.std == pytest.approx(50**0.5)


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["compare.variants={}"], "compare.variants"),
        (["compare.variants={ce: {distill.objectives: {}}}"], "distill.objectives"),
    ],
)
def test_a_variant_that_does_not_fit_is_refused_before_any_training(
    small: list[str], tmp_path: Path, sets: list[str], said: str
) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        compare.run(load_config("quickstart", [*small, f"runs={tmp_path / 'runs'}", *sets]))
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []
