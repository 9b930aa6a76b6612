"""What a training's settings are where nobody sets them."""

from pathlib import Path

import pytest

from egapipe.pipeline.config import Config, load_config, to_yaml
from egapipe.pipeline.config.distill import DistillConfig
from egapipe.pipeline.config.recipes import filled
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.results.durable import FORMAT_1
from egapipe.pipeline.results.identity import run_identity

MINIMAL = {
    "name": "mine",
    "dataset": {"train": {"kind": "digits", "split": "train"}},
    "teacher": {"backend": "timm", "model": "vit"},
}


def config(**distill: object) -> Config:
    return Config.model_validate({**MINIMAL, "distill": distill})


def test_the_paper_is_what_the_sections_say_by_themselves() -> None:
    assert config(recipe="paper").distill == DistillConfig()


def test_the_default_recipe() -> None:
    distill = config(recipe="default").distill
    assert (distill.head.mode, distill.head.solver) == ("sequential", "lbfgs")
    assert (distill.standardize, distill.schedule, distill.warmup_epochs) == ("zscore", "cosine", 5)
    assert (distill.nesterov, distill.decay_on, distill.lr) == (True, "weights", 0.1)
    terms = distill.objective.model_dump(exclude_none=True)
    assert {name: options["weight"] for name, options in terms.items()} == {
        "ega": "auto",
        "kd": "auto",
    }


def test_what_names_no_recipe_has_the_default() -> None:
    assert config() == config(recipe="default")
    assert Config.model_validate(MINIMAL) == config(recipe="default")


def test_what_is_said_stays() -> None:
    said = {
        "lr": 0.3,
        "schedule": "steps",
        "warmup_epochs": 0,
        "standardize": "none",
        "nesterov": False,
        "decay_on": "all",
        "objective": {},
        "head": {"mode": "simultaneous", "solver": "sgd"},
    }
    distill = config(recipe="default", **said).distill
    for name, value in said.items():
        found = getattr(distill, name)
        if name not in ("objective", "head"):
            assert found == value
    assert distill.objective.model_dump(exclude_none=True) == {}
    assert (distill.head.mode, distill.head.solver) == ("simultaneous", "sgd")


def test_a_head_that_learns_beside_the_student_sees_the_features_as_they_are() -> None:
    """Its rate is theirs."""
    assert config(recipe="default", head={"mode": "simultaneous"}).distill.standardize == "none"


@pytest.mark.parametrize(("rows", "rate"), [(64, 0.1), (256, 0.2), (512, 0.2828), (16, 0.05)])
def test_the_rate_follows_the_batch(rows: int, rate: float) -> None:
    assert config(recipe="default", batch_size=rows).distill.lr == rate
    assert config(recipe="paper", batch_size=rows).distill.lr == 0.05


@pytest.mark.parametrize("name", ["shufflenet_v1", "mobilenet_v2_half"])
def test_students_of_depthwise_convolutions_have_a_fifth(name: str) -> None:
    student = {"name": name}
    assert config(recipe="default", student=student).distill.lr == 0.02
    assert config(recipe="paper", student=student).distill.lr == 0.01


@pytest.mark.parametrize(("epochs", "warmup"), [(240, 5), (8, 0.8), (1, 0.1)])
def test_a_short_training_warms_up_for_a_tenth(epochs: int, warmup: float) -> None:
    assert config(recipe="default", epochs=epochs).distill.warmup_epochs == warmup


def test_a_configuration_that_was_resolved_stays_what_it_was(tmp_path: Path) -> None:
    """By this egapipe, which says its recipe, and by one that knew none."""
    for recipe in ("default", "paper"):
        made = config(recipe=recipe, batch_size=256)
        (tmp_path / "again.yaml").write_text(to_yaml(made))
        assert load_config(str(tmp_path / "again.yaml")) == made
    old = config(recipe="paper").distill.model_dump(mode="json")
    old = {name: old[name] for name in FORMAT_1["DistillConfig"].split()}
    assert filled(old)["recipe"] == "paper"
    assert config(**old).distill == DistillConfig()


def test_settings_are_what_a_run_is_and_not_the_name_of_their_recipe() -> None:
    plain = config(recipe="default")
    spelled = plain.distill.model_dump(mode="json") | {"recipe": "paper"}
    assert run_identity(config(**spelled)) == run_identity(plain)
    assert run_identity(config(recipe="paper")) != run_identity(plain)


@pytest.mark.parametrize(
    ("distill", "said"),
    [
        ("distill={recipe: papers}", r"distill\.recipe must be 'default' or 'paper'"),
        ("distill={recipe: []}", r"distill\.recipe must be"),
        ("distill=5", r"distill"),
        ("distill={recipe: default, epochs: -1, batch_size: -1}", r"distill\.batch_size"),
        ("distill={recipe: default, head: 5}", r"distill\.head"),
        ("distill={recipe: default, epochs: x}", r"distill\.epochs"),
        ("distill={recipe: default, batch_size: x}", r"distill\.batch_size"),
        ("distill={recipe: default, student: 5}", r"distill\.student"),
    ],
)
def test_mistakes_are_those_of_the_user(distill: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load_config("quickstart", [distill])
