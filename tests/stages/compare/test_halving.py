"""Successive halving: poor variants end early, the same ones whenever it is asked."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egapipe.pipeline.config import load_config
from egapipe.pipeline.config.compare import Halving
from egapipe.pipeline.results.experiment import Experiment, Setting
from egapipe.pipeline.results.runs import RunFolder
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.stages import compare
from egapipe.stages.compare.halving import dropped, looks
from tests.golden_copy import golden

__all__ = ["golden"]


@given(st.integers(1, 300), st.integers(1, 50), st.floats(1.01, 10))
def test_looks_are_epochs_before_the_last_each_later_than_the_one_before(
    epochs: int, grace: int, reduction: float
) -> None:
    found = looks(Halving(grace_epochs=grace, reduction=reduction), epochs)
    assert found == sorted(set(found))
    assert all(grace <= look < epochs for look in found)
    assert bool(found) == (grace < epochs)
    assert looks(None, epochs) == []


def test_one_in_so_many_goes_on_and_the_baseline() -> None:
    names = ["ce", "a", "b", "c", "d"]
    experiment = Experiment(
        kind="comparison",
        name="x",
        metric="test/top1",
        mode="max",
        baseline="ce",
        planned=0,
        settings=tuple(Setting(name=name, label=name) for name in names),
        cells=(),
    )
    values = {"ce": {0: 1.0}, "a": {0: 5.0}, "b": {0: 4.0, 1: 5.0}, "c": {}, "d": {0: 2.0}}
    gone = dropped(Halving(reduction=2.0), experiment, values)
    assert [setting.name for setting in gone] == ["c", "d"]
    # Nothing separates equals.
    equal = {name: {0: 3.0} for name in names}
    assert dropped(Halving(reduction=4.0), experiment, equal) == []
    least = experiment.model_copy(update={"mode": "min"})
    assert [s.name for s in dropped(Halving(reduction=4.0), least, values)] == ["a", "b", "c"]


@pytest.mark.usefixtures("golden")
def test_poor_variants_end_early_and_the_same_command_changes_nothing() -> None:
    poor = "{distill.lr: 1.0e-9, distill.objective: {}}"
    variants = f"compare.variants={{ce: {{distill.objective: {{}}}}, ega: {{}}, poor: {poor}}}"
    few = ["distill.epochs=4", "distill.lr=0.05", "compare.seeds=[0, 1]"]
    halving = "compare.halving={grace_epochs: 2, reduction: 2}"
    config = load_config("golden.yaml", [variants, *few, halving])
    report = compare.run(config)
    states = {cell.setting: cell.state for cell in report.experiment.cells}
    assert states["ce"] == "done"
    assert sorted([states["ega"], states["poor"]]) in (["done", "stopped"], ["done", "done"])
    folder = RunFolder(Path(report.folder))
    for cell in report.experiment.cells:
        epochs = len(read_metrics(folder.beside(str(cell.run))))
        assert epochs == (2 if cell.state == "stopped" else 4)
        assert epochs == cell.epoch
    again = compare.run(config)
    assert again.experiment.cells == report.experiment.cells
    # Without halving the others go on from where they were.
    whole = compare.run(load_config("golden.yaml", [variants, *few]))
    assert [cell.state for cell in whole.experiment.cells] == ["done"] * 6
    assert whole.folder == report.folder
