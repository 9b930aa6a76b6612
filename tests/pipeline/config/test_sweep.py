"""The section of a sweep: what a space may say, and what is said of one that is wrong."""

from typing import Any

import pytest

from egapipe.pipeline.config import Config, load_config, to_yaml
from egapipe.pipeline.config.sweep import AshaScheduler, MedianScheduler
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.results.runs import run_identity


def loaded(*overrides: str) -> Config:
    return load_config("quickstart", overrides)


def space(text: str) -> str:
    return f"sweep.space={{distill.lr: {text}}}"


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("{uniform: [0, 1]}", "uniform", (0.0, 1.0)),
        ("{loguniform: [0.05, 5]}", "loguniform", (0.05, 5.0)),
        ("{randint: [1, 4]}", "randint", (1, 4)),
        ("{choice: [1, a, {b: 2}, null]}", "choice", (1, "a", {"b": 2}, None)),
        ("{grid: [0.1]}", "grid", (0.1,)),
    ],
)
def test_the_values_of_a_setting(text: str, kind: str, value: Any) -> None:
    dimension = loaded(space(text)).sweep.space["distill.lr"]
    assert dimension.kind == kind
    assert getattr(dimension, kind) == value


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (space("{unifrom: [1, 2]}"), "unifrom is not a key, did you mean 'uniform'?"),
        (space("{}"), "give one of uniform, loguniform, randint, choice, grid, got none"),
        (
            space("{uniform: [1, 2], grid: [1]}"),
            "give one of uniform, loguniform, randint, choice, grid, got uniform, grid",
        ),
        (space("{uniform: [2, 1]}"), "uniform must be low < high, got 2, 1"),
        (space("{randint: [3, 3]}"), "randint must be low < high, got 3, 3"),
        (space("{loguniform: [0, 1]}"), "loguniform.0 must be greater than 0 (got 0)"),
        (space("{choice: []}"), "choice"),
        (space("{uniform: [1, 2], when: kdd}"), "'kdd' is not an objective: ega, kd,"),
        (space("{uniform: [1, 2], when: [kd, x]}"), "'x' is not an objective: ega, kd,"),
        ("sweep.scheduler=bohb", "sweep.scheduler.kind must be one of fifo, asha, median, pbt"),
        ("sweep.scheduler={kind: median, reduction: 2}", "it belongs to the kind asha"),
        ("sweep.track={kind: tensorboard}", "sweep.track.kind must be one of mlflow, wandb"),
    ],
)
def test_what_is_said_of_a_wrong_one(override: str, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        loaded(override)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_condition_is_one_objective_or_several() -> None:
    assert loaded(space("{uniform: [1, 2]}")).sweep.space["distill.lr"].objectives == ()
    one = loaded(space("{uniform: [1, 2], when: kd}")).sweep.space["distill.lr"]
    two = loaded(space("{uniform: [1, 2], when: [kd, ega]}")).sweep.space["distill.lr"]
    assert (one.objectives, two.objectives) == (("kd",), ("kd", "ega"))


def test_a_scheduler_may_be_its_name_or_its_options_alone() -> None:
    assert loaded("sweep.scheduler=median").sweep.scheduler == MedianScheduler(kind="median")
    asha = loaded("sweep.scheduler={grace_epochs: 3}").sweep.scheduler
    assert asha == AshaScheduler(kind="asha", grace_epochs=3)


def test_a_sweep_survives_yaml_and_is_no_part_of_a_run(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    config = loaded(space("{choice: [{a: 1}, 2]}"), "sweep.scheduler=pbt")
    file = tmp_path_factory.mktemp("config") / "a.yaml"
    file.write_text(to_yaml(config))
    assert load_config(str(file)) == config
    assert run_identity(config) == run_identity(loaded())
