"""Settings are compared by their means over seeds."""

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egapipe.pipeline.config import Config, load_config
from egapipe.pipeline.config.sweep import direction
from egapipe.pipeline.errors import UsageError
from egapipe.stages.experiment.cells import SEED
from egapipe.stages.sweep.plan import plan
from egapipe.stages.sweep.settings import by_settings, unseparated

LR = "distill.lr"


@dataclass(frozen=True)
class Trial:
    number: int
    value: float | None
    status: str = "finished"
    changes: dict[str, Any] = field(default_factory=dict)


def trials(values: dict[float, list[float | None]]) -> list[Trial]:
    """lr -> value a seed, None for one that was ended early."""
    flat = [(lr, seed, v) for lr, mine in values.items() for seed, v in enumerate(mine)]
    return [
        Trial(
            n, 99.0 if v is None else v, "stopped" if v is None else "finished", {LR: lr, SEED: s}
        )
        for n, (lr, s, v) in enumerate(flat)
    ]


def test_a_lucky_seed_is_not_the_best() -> None:
    first, second = by_settings(trials({0.1: [99.0, 70.0, 71.0], 0.2: [90.0, 91.0, 92.0]}), "max")
    assert (first.changes, first.mean, first.std) == ({LR: 0.2}, 91.0, 1.0)
    assert (second.changes, second.mean) == ({LR: 0.1}, 80.0)
    assert first.trials[0].changes[SEED] == 0


def test_what_is_left_of_a_setting_does_not_stand_for_all_of_it() -> None:
    first, second = by_settings(trials({0.1: [99.0, None, None], 0.2: [90.0, 91.0, None]}), "max")
    assert (first.changes[LR], len(first.trials), first.planned) == (0.2, 2, 3)
    assert (second.changes[LR], len(second.trials), second.planned) == (0.1, 1, 3)


def test_what_separates() -> None:
    clear = {0.1: [90.0, 91.0, 92.0], 0.2: [70.0, 71.1, 72.0], 0.3: [60.0, 61.0, 62.1]}
    assert unseparated(by_settings(trials(clear), "max")) == 0
    close = {**clear, 0.2: [95.0, 85.0, 90.0]}
    assert unseparated(by_settings(trials(close), "max")) == 1
    assert unseparated(by_settings(trials({0.1: [90.0], 0.2: [10.0]}), "max")) == 1
    assert unseparated([]) == 0


@given(
    st.dictionaries(
        st.floats(0, 1), st.lists(st.none() | st.floats(0, 100), min_size=1, max_size=4), max_size=5
    ),
    st.sampled_from(["max", "min"]),
)
def test_no_setting_with_as_many_seeds_is_better(
    values: dict[float, list[float | None]], mode: str
) -> None:
    groups = by_settings(trials(values), mode)
    sign = 1 if mode == "max" else -1
    for group in groups[1:]:
        assert len(group.trials) <= len(groups[0].trials)
        if len(group.trials) == len(groups[0].trials):
            assert sign * group.mean <= sign * groups[0].mean
    assert 0 <= unseparated(groups) <= max(0, len(groups) - 1)


def test_a_value_that_is_none_is_no_best() -> None:
    assert by_settings([Trial(0, math.nan), Trial(1, None)], "max") == []


def config(*sets: str) -> Config:
    return load_config("quickstart", [f"sweep.space={{{LR}: {{grid: [0.1, 0.2]}}}}", *sets])


@pytest.mark.parametrize(
    ("metric", "mode"),
    [
        ("test/top1", "max"),
        ("validation/top1", "max"),
        ("train/rows_per_s", "max"),
        ("train/loss", "min"),
        ("train/ega", "min"),
        ("train/head_ce", "min"),
        ("train/data_wait", "min"),
    ],
)
def test_the_metric_says_which_way_is_better(metric: str, mode: str) -> None:
    other = {"max": "min", "min": "max"}[mode]
    assert direction(metric) == mode
    assert config(f"sweep.metric={metric}").sweep.mode == mode
    with pytest.raises(UsageError, match="would be the worst"):
        plan(config(f"sweep.metric={metric}", f"sweep.mode={other}"))


def test_a_metric_that_does_not_say_needs_a_mode() -> None:
    with pytest.raises(UsageError, match="set mode, max or min"):
        config("sweep.metric=train/temperature")
    assert config("sweep.metric=train/temperature", "sweep.mode=min").sweep.mode == "min"


def test_the_mode_is_the_metrics_where_the_metric_is_changed_to_validation() -> None:
    sets = ["dataset.validation={fraction: 0.1}", "sweep.metric=test/loss"]
    assert config(*sets).sweep.mode == "min"
