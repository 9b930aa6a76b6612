"""Objectives and samplers of the user's own, `module:callable`."""

from pathlib import Path

import pytest
import yaml

from egapipe.pipeline.config import load_config, to_yaml
from egapipe.pipeline.errors import UsageError
from egapipe.stages import distill
from tests.stages.distill.conftest import MakeConfig

MODULE = """
import numpy as np
import torch
from egapipe.stages.distill.objectives import Objective


class Distance(Objective):
    needs = frozenset({"student", "teacher_features"})

    def __init__(self, facts, power=2.0):
        super().__init__()
        self.layer = torch.nn.Linear(facts.student_dim, facts.teacher_features)
        self.power = power

    def forward(self, pair):
        return (self.layer(pair.student) - pair.teacher_features).abs().pow(self.power).mean()


def fails(facts):
    raise RuntimeError("no\\nway")


def number(facts):
    return 3


def backwards(pool):
    return lambda rows, number: rows[::-1].copy()


def few(pool):
    return lambda rows, number: rows[:-1]


def other(pool):
    return lambda rows, number: rows + 10**6
"""
CUSTOM = "distill.objective={custom: {call: 'mine_own:Distance', args: {power: 1.5}, weight: auto}}"


@pytest.fixture
def mine(quick: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeConfig:
    (tmp_path / "mine_own.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return lambda *sets: quick("distill.epochs=1", *sets)


def test_both_train(mine: MakeConfig) -> None:
    done = distill.run(mine(CUSTOM, "distill.sampler=mine_own:backwards"))
    assert done.run.name.startswith("digits_cnn-custom-seed0-")
    assert done.top1 is not None
    plain = distill.run(mine(CUSTOM))
    assert plain.summary["top1"] != done.summary["top1"]


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["distill.sampler=mine_own:few"], r"sampler 'mine_own:few' gives int64 \[\d+\] in pass 0"),
        (["distill.sampler=mine_own:other"], "sampler 'mine_own:other' gives int64"),
        (["distill.sampler=mine_own:none"], "sampler 'mine_own:none': mine_own has no 'none'"),
        (["distill.sampler=randam"], "distill.sampler"),
        (["distill.objective={custom: {call: 'mine_own:fails'}}"], "fails: RuntimeError: no way"),
        (["distill.objective={custom: {call: 'mine_own:number'}}"], "gives int: it must give"),
        (["distill.objective={custom: {call: 'nobody:x'}}"], "cannot import nobody"),
        (["distill.objective={custom: {call: mine}}"], "distill.objective.custom.call"),
        (
            ["distill.objective={custom: {call: 'mine_own:Distance', args: {powr: 1}}}"],
            "objective 'mine_own:Distance'.*powr",
        ),
    ],
)
def test_mistakes_are_one_line(mine: MakeConfig, sets: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        distill.run(mine(*sets))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("sets", [CUSTOM, "distill.sampler=mine_own:backwards"])
def test_results_that_name_code_are_not_trusted(
    mine: MakeConfig, tmp_path: Path, sets: str
) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "store.json").write_text("{}")
    file = folder / "config.yaml"
    file.write_text(to_yaml(mine(sets)))
    with pytest.raises(UsageError, match=r"names code, 'mine_own:.*--trust-remote-code"):
        load_config(str(file))
    assert load_config(str(file), trust_remote_code=True) == mine(sets)
    assert yaml.safe_load(file.read_text())["distill"]["sampler"]
