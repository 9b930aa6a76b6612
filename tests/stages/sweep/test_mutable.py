"""What population based training may change, and how far."""

import pytest

from egapipe.pipeline.config import Config, load_config
from egapipe.pipeline.errors import UsageError
from egapipe.stages.sweep.mutable import check_mutable, within


def config(space: str, *sets: str) -> Config:
    return load_config("quickstart", ["sweep.scheduler=pbt", f"sweep.space={{{space}}}", *sets])


@pytest.mark.parametrize(
    "path",
    [
        "distill.lr",
        "distill.head.lr",
        "distill.weight_decay",
        "distill.objective.ega.weight",
        "distill.objective.ega.edge_weight",
        "distill.objective.kd.temperature",
    ],
)
def test_rates_and_weights_may_change(path: str) -> None:
    check_mutable(config(f"{path}: {{uniform: [0.1, 1]}}"))


@pytest.mark.parametrize(
    ("space", "sets", "said"),
    [
        ("distill.head.dim: {choice: [32, 64]}", (), "distill.head.dim cannot change within"),
        ("distill.seed: {choice: [0, 1]}", (), "distill.seed cannot change within"),
        ("distill.objective: {choice: [{}, {kd: 1}]}", (), "distill.objective cannot change"),
        ("distill.lr: {grid: [1, 2]}", (), "pbt takes uniform, loguniform, choice"),
        ("distill.lr: {uniform: [1, 2], when: kd}", (), "without a condition"),
        ("distill.lr: {uniform: [1, 2]}", ("sweep.search=optuna",), "sweep.search is optuna"),
        ("distill.lr: {uniform: [1, 2]}", ("distill.workers=2",), "distill.workers is 2"),
    ],
)
def test_what_cannot_is_refused(space: str, sets: tuple[str, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        check_mutable(config(space, *sets))
    assert "\n" not in str(raised.value)


def test_a_changed_value_stays_within_its_ends() -> None:
    tree = config("distill.lr: {uniform: [1, 2]}, distill.head.lr: {choice: [1, 9]}")
    changes = {"distill.lr": 2.4, "distill.head.lr": 9}
    assert within(tree.sweep.space, changes) == {"distill.lr": 2.0, "distill.head.lr": 9}
    assert within(tree.sweep.space, {"distill.lr": 0.8}) == {"distill.lr": 1.0}
