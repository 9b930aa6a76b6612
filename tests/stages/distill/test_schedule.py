"""The paper's steps of the learning rate, and the schedules beside them."""

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egapipe.pipeline.config import load_config, to_yaml
from egapipe.pipeline.config.distill import DistillConfig
from egapipe.pipeline.config.files import is_part, shipped
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.results.runs import RunFolder, run_folder
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.stages import distill
from egapipe.stages.distill.training.schedule import check_milestones, learning_rate
from tests.command import egapipe
from tests.markdown import blocks, page
from tests.stages.distill.conftest import MakeConfig
from tests.stages.distill.test_kills import kill_after_progress
from tests.stages.distill.test_training import assert_same_weights

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

CONFIGS = st.builds(
    lambda schedule, epochs, share: DistillConfig(
        schedule=schedule, epochs=epochs, warmup_epochs=share * epochs
    ),
    st.sampled_from(["steps", "cosine"]),
    st.integers(1, 300),
    st.floats(0, 0.9),
)


def rates(config: DistillConfig, steps: int) -> list[float]:
    """Of every step of a training."""
    return [learning_rate(config, e, s, steps) for e in range(config.epochs) for s in range(steps)]


def test_the_papers_schedule_is_the_default() -> None:
    config = DistillConfig()
    found = {epoch: learning_rate(config, epoch) for epoch in (0, 149, 150, 179, 180, 210, 239)}
    expected = {0: 0.05, 149: 0.05, 150: 5e-3, 179: 5e-3, 180: 5e-4, 210: 5e-5, 239: 5e-5}
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("name", [name for name in shipped() if not is_part(name)])
def test_every_shipped_schedule_decays_before_its_end(name: str) -> None:
    check_milestones(load_config(name).distill)


def test_the_readmes_own_example_decays(tmp_path: Path) -> None:
    [example] = [text for _, text in blocks(page("README.md")) if "name: mine" in text]
    (tmp_path / "mine.yaml").write_text(example)
    config = load_config(str(tmp_path / "mine.yaml")).distill
    assert learning_rate(config, config.epochs - 1) < config.lr / 1000
    paper = load_config(str(tmp_path / "mine.yaml"), ["distill.recipe=paper"]).distill
    assert learning_rate(paper, paper.epochs - 1) == pytest.approx(paper.lr / 1000)


@pytest.mark.parametrize(("milestones", "late"), [("[0.5, 3]", "3"), ("[1, 4, 150]", "4, 150")])
def test_a_milestone_that_is_never_reached_is_refused(
    quick: MakeConfig, milestones: str, late: str
) -> None:
    """Before a run folder is made; a schedule that has no milestones does not mind them."""
    config = quick(f"distill.milestones={milestones}")
    with pytest.raises(UsageError, match=rf"^distill\.milestones {late}: .* epoch 3, .* shares"):
        distill.run(config)
    assert not run_folder(config).path.exists()
    check_milestones(quick(f"distill.milestones={milestones}", "distill.schedule=cosine").distill)


def test_milestones_below_one_are_shares_of_the_epochs() -> None:
    config = DistillConfig(epochs=40, lr=1.0, milestones=(0.5, 0.75))
    assert [learning_rate(config, e) for e in (19, 20, 29, 30)] == pytest.approx(
        [1, 0.1, 0.1, 0.01]
    )


def test_steps_fall_between_epochs_never_within_one() -> None:
    """Also where a share of the epochs is no whole epoch: 0.5 of 5."""
    config = DistillConfig(epochs=5, lr=1.0, milestones=(0.5,))
    assert rates(config, 2) == pytest.approx([1, 1, 1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1])


def test_cosine_falls_from_the_full_rate_to_nothing() -> None:
    config = DistillConfig(epochs=4, lr=2.0, schedule="cosine")
    found = rates(config, 2)
    assert found == pytest.approx([1 + math.cos(math.pi * i / 8) for i in range(8)])
    assert learning_rate(config, 2) == pytest.approx(1.0)
    assert found[0] == 2.0
    assert found == sorted(found, reverse=True)


@pytest.mark.parametrize("schedule", ["steps", "cosine"])
def test_warm_up_rises_by_equal_steps_and_leaves_the_rest_of_the_schedule(schedule: str) -> None:
    config = DistillConfig.model_validate(
        {"epochs": 6, "lr": 1.0, "milestones": [4], "schedule": schedule, "warmup_epochs": 2}
    )
    found = rates(config, 5)
    assert found[:10] == pytest.approx([0.1 * i for i in range(1, 11)])
    if schedule == "steps":
        assert found[10:] == pytest.approx([1.0] * 10 + [0.1] * 10)
    else:
        assert found[10:] == pytest.approx(
            [0.5 * (1 + math.cos(math.pi * i / 20)) for i in range(20)]
        )


def test_warm_up_of_part_of_an_epoch() -> None:
    config = DistillConfig(epochs=2, lr=1.0, milestones=(), warmup_epochs=0.5)
    assert rates(config, 4) == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 1])


@given(CONFIGS, st.integers(1, 50))
def test_a_rate_is_never_zero_nor_above_the_first(config: DistillConfig, steps: int) -> None:
    found = rates(config, steps)
    assert all(0 < rate <= config.lr for rate in found)
    warm = math.ceil(config.warmup_epochs * steps)
    assert found[:warm] == sorted(found[:warm]) or config.schedule == "steps"
    assert found[warm:] == sorted(found[warm:], reverse=True)


@given(CONFIGS)
def test_without_options_a_rate_does_not_change_within_an_epoch(config: DistillConfig) -> None:
    plain = config.model_copy(update={"schedule": "steps", "warmup_epochs": 0})
    for epoch in range(plain.epochs):
        assert {learning_rate(plain, epoch, step, 3) for step in range(3)} == {
            learning_rate(plain, epoch)
        }


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("distill={nesterov: true, momentum: 0}", "distill: nesterov needs a momentum above 0"),
        ("distill.warmup_epochs=3", "distill: warmup_epochs 3 is not below epochs 3"),
        ("distill.warmup_epochs=-1", "distill.warmup_epochs must be greater than or equal to 0"),
        ("distill.clip_grad_norm=0", "distill.clip_grad_norm must be greater than 0 (got 0)"),
        ("distill.schedule=cos", "distill.schedule must be 'steps' or 'cosine' (got 'cos')"),
    ],
)
def test_values_that_make_no_schedule(quick: MakeConfig, override: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        quick(override)
    assert said in str(caught.value)


OPTIONS = (
    "distill.schedule=cosine",
    "distill.warmup_epochs=1.5",
    "distill.clip_grad_norm=0.5",
    "distill.lr=0.05",
)


def test_a_training_takes_the_rates_of_its_steps(quick: MakeConfig) -> None:
    config = quick(*OPTIONS)
    done = distill.run(config)
    steps = done.summary["train_rows"] // config.distill.batch_size
    expected = [learning_rate(config.distill, epoch, steps - 1, steps) for epoch in range(3)]
    assert [line["lr"] for line in read_metrics(RunFolder(done.run))] == expected
    assert expected[0] < expected[1] > expected[2] > 0


def test_a_limit_beyond_every_gradient_changes_no_bit_and_a_small_one_does(
    quick: MakeConfig,
) -> None:
    plain, loose, tight = (
        distill.run(quick(f"distill.clip_grad_norm={limit}")).run for limit in ("null", "1e9", 0.1)
    )
    assert_same_weights(plain, loose)
    with pytest.raises(AssertionError):
        assert_same_weights(plain, tight)


@pytest.mark.slow
def test_a_killed_training_with_every_option_ends_with_the_same_weights(
    quick: MakeConfig, tmp_path: Path
) -> None:
    """Warm-up and cosine within an epoch: a resumed step must find the rate it would have had."""
    sets = [*OPTIONS, "distill.epochs=6", "distill.checkpoint_steps=3"]
    undisturbed = distill.run(quick(*sets, f"runs={tmp_path / 'undisturbed'}"))
    config = quick(*sets)
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    command = ["distill", "-c", str(tmp_path / "config.yaml")]
    assert sum(kill_after_progress(command, run_folder(config), 0.05 * i) for i in range(2)) >= 1
    end = egapipe(*command)
    assert end.returncode == 0, end.stderr
    assert_same_weights(undisturbed.run, run_folder(config).path)
