"""The trials of a sweep: a pure function of the configuration, checked before any of them runs."""

import itertools
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egapipe.pipeline.config import Config, load_config
from egapipe.pipeline.config.sweep import Dimension
from egapipe.pipeline.errors import UsageError
from egapipe.stages.sweep.plan import assemble, plan, present
from egapipe.stages.sweep.space import draw, ends, every

LAMBDA = "distill.objective.ega.weight"
TEMPERATURE = "distill.objective.kd.temperature"
TERMS = "{ega: {}}, {kd: 1.0}, {ega: {}, kd: {}}, {}"
CONDITIONAL = (
    f"distill.objective: {{choice: [{TERMS}]}}",
    f"{TEMPERATURE}: {{uniform: [1, 8], when: kd}}",
    f"{LAMBDA}: {{loguniform: [0.05, 5], when: ega}}",
    "distill.lr: {uniform: [0.01, 0.1]}",
)


def config(*dimensions: str, sets: tuple[str, ...] = ()) -> Config:
    return load_config("quickstart", [f"sweep.space={{{', '.join(dimensions)}}}", *sets])


def refusal(*dimensions: str, sets: tuple[str, ...] = ()) -> str:
    with pytest.raises(UsageError) as raised:
        plan(config(*dimensions, sets=sets))
    assert "\n" not in str(raised.value)
    return str(raised.value)


def ordered(kind: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[Dimension]:
    pairs = st.tuples(values, values).filter(lambda pair: pair[0] < pair[1])
    return pairs.map(lambda pair: Dimension(**{kind: pair}))


REALS = st.floats(-1e6, 1e6)
LISTS = st.lists(st.integers() | st.text(), min_size=1, max_size=4)
DIMENSIONS = (
    ordered("uniform", REALS)
    | ordered("loguniform", st.floats(1e-6, 1e6))
    | ordered("randint", st.integers(-50, 50))
    | LISTS.map(lambda values: Dimension(choice=values))
    | LISTS.map(lambda values: Dimension(grid=values))
)


@settings(deadline=None)
@given(DIMENSIONS, st.integers(0, 1000))
def test_a_draw_is_one_of_the_values(dimension: Dimension, seed: int) -> None:
    value = draw(dimension, np.random.default_rng(seed))
    assert json.dumps(value)
    if dimension.kind in ("choice", "grid"):
        assert value in ends(dimension)
    else:
        low, high = ends(dimension)
        assert low <= value <= high
        assert type(value) is (int if dimension.kind == "randint" else float)


def test_all_orders_of_magnitude_are_equally_likely() -> None:
    dimension = Dimension(loguniform=(1e-3, 1e3))
    rng = np.random.default_rng(0)
    drawn = np.array([draw(dimension, rng) for _ in range(3000)])
    shares = np.histogram(np.log10(drawn), bins=6, range=(-3, 3))[0] / len(drawn)
    # Six standard deviations of a share of 1/6 in 3000 draws are 0.041.
    assert np.all(abs(shares - 1 / 6) < 0.041)


@settings(max_examples=30, deadline=None)
@given(st.integers(-20, 20), st.integers(1, 20))
def test_a_range_of_integers_has_both_ends(low: int, width: int) -> None:
    dimension = Dimension(randint=(low, low + width))
    assert every("x", dimension) == list(range(low, low + width + 1))
    rng = np.random.default_rng(0)
    drawn = {draw(dimension, rng) for _ in range(60 * (width + 1))}
    assert drawn == set(every("x", dimension))


def test_the_first_trials_stay_when_there_are_more() -> None:
    few, more = (plan(config(*CONDITIONAL, sets=(f"sweep.samples={n}",))) for n in (5, 12))
    assert (len(few), len(more)) == (5, 12)
    assert [t.changes for t in more[:5]] == [t.changes for t in few]
    other = plan(config(*CONDITIONAL, sets=("sweep.samples=5", "sweep.search_seed=1")))
    assert [t.changes for t in other] != [t.changes for t in few]


def test_a_setting_with_a_condition_is_there_where_the_objective_is() -> None:
    trials = plan(config(*CONDITIONAL, sets=("sweep.samples=40",)))
    assert len({json.dumps(t.changes["distill.objective"]) for t in trials}) == 4
    for trial in trials:
        objective = trial.config.distill.objective
        assert (TEMPERATURE in trial.changes) == (objective.kd is not None)
        assert (LAMBDA in trial.changes) == (objective.ega is not None)
        if objective.kd is not None:
            assert objective.kd.temperature == trial.changes[TEMPERATURE]
        if objective.ega is not None:
            assert objective.ega.weight == trial.changes[LAMBDA]
        assert trial.config.distill.lr == trial.changes["distill.lr"]


def test_a_section_is_set_before_what_lies_below_it() -> None:
    values = {LAMBDA: 0.5, "distill.objective": {"ega": {"weight": 3.0, "edge_weight": 1.0}}}
    both = config(f"{LAMBDA}: {{uniform: [0, 1]}}", f"distill.objective: {{choice: [{TERMS}]}}")
    ega = assemble(both, values).config.distill.objective.ega
    assert ega is not None
    assert (ega.weight, ega.edge_weight) == (0.5, 1.0)


def test_which_conditional_settings_a_trial_has() -> None:
    tree = config(*CONDITIONAL)
    assert present(tree, {"distill.objective": {}}) == []
    assert present(tree, {"distill.objective": {"kd": 1}}) == [TEMPERATURE]
    assert present(tree, {"distill.objective": {"ega": 1, "kd": 1}}) == [TEMPERATURE, LAMBDA]


def test_a_grid_is_every_combination_once() -> None:
    grid = config(
        "distill.batch_size: {randint: [32, 34]}",
        "distill.lr: {grid: [0.1, 0.2]}",
        "distill.head.dim: {choice: [16, null]}",
        sets=("sweep.search=grid", "sweep.samples=1"),
    )
    found = [tuple(trial.changes.values()) for trial in plan(grid)]
    assert found == list(itertools.product([32, 33, 34], [0.1, 0.2], [16, None]))


def test_combinations_that_a_condition_makes_equal_are_one_trial() -> None:
    grid = config(
        "distill.objective: {choice: [{}, {kd: 1}]}",
        f"{TEMPERATURE}: {{grid: [1, 2, 4], when: kd}}",
        sets=("sweep.search=grid",),
    )
    kinds = [sorted(trial.changes) for trial in plan(grid)]
    assert kinds == [["distill.objective"], *[["distill.objective", TEMPERATURE]] * 3]


def test_every_draw_has_every_value_of_a_grid() -> None:
    both = config(
        "distill.seed: {grid: [0, 1, 2]}",
        f"{LAMBDA}: {{loguniform: [0.05, 5]}}",
        sets=("sweep.samples=4",),
    )
    trials = plan(both)
    drawn = [trial.changes[LAMBDA] for trial in trials]
    assert [trial.changes["distill.seed"] for trial in trials] == [0, 1, 2] * 4
    assert drawn == [value for value in drawn[::3] for _ in range(3)]
    assert len(set(drawn)) == 4


@pytest.mark.parametrize(
    ("dimension", "said"),
    [
        ("distill.objective.egga.weight: {grid: [1]}", "egga is not a key, did you mean 'ega'?"),
        ("distill.objective.ega.wieght: {grid: [1]}", "did you mean 'weight'?"),
        ("objective.ega.weight: {grid: [1]}", "did you mean 'distill.objective'?"),
        ("distill.lr: {uniform: [-1, 1]}", "distill.lr must be greater than or equal to 0"),
        ("distill.batch_size: {choice: [32, 1.5]}", "distill.batch_size must be an integer"),
        ("distill.lr.x: {grid: [1]}", "cannot set distill.lr.x: distill.lr is 0.01"),
        ("views.count: {grid: [1, 2]}", "views.count is no setting of stage two"),
        ("distill.workers: {grid: [1, 2]}", "distill.workers is the same for all trials"),
    ],
)
def test_a_setting_that_there_is_not_is_refused_and_the_nearest_named(
    dimension: str, said: str
) -> None:
    assert said in refusal(dimension)


def test_values_that_do_not_go_together_are_refused_too() -> None:
    """Each alone is valid: only the trial that has both is not."""
    both = ("distill.epochs: {grid: [5, 9]}", "distill.warmup_epochs: {grid: [1, 6]}")
    said = refusal(*both, sets=("sweep.search=grid", "distill.epochs=9"))
    assert "distill.epochs = 5, distill.warmup_epochs = 6" in said
    assert "warmup_epochs 6 is not below epochs 5" in said


def test_a_search_that_does_not_fit_the_space_is_refused() -> None:
    assert "sweep.space is empty" in refusal()
    assert "has no end of values" in refusal(
        "distill.lr: {uniform: [0, 1]}", sets=("sweep.search=grid",)
    )
    assert "write choice" in refusal("distill.lr: {grid: [1]}", sets=("sweep.search=optuna",))
