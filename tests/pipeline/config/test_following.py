"""A variant of a whole configuration has what its recipe says of it, as one that is written has."""

import json
from typing import Any

import pytest

from egapipe.pipeline.config import Config, load_config
from egapipe.pipeline.config.following import followed
from egapipe.stages.experiment.cells import changed

CHANGES: list[dict[str, Any]] = [
    {"distill.batch_size": 256},
    {"distill.optimizer": "adamw"},
    {"distill.optimizer": "muon", "distill.batch_size": 16},
    {"distill.epochs": 8},
    {"distill.momentum": 0.0},
    {"distill.student.name": "shufflenet_v1"},
    {"distill.head.mode": "simultaneous", "distill.head.solver": "sgd"},
    {"distill.lr": 0.3, "distill.optimizer": "adamw"},
    {"distill.objective": {"ega": 1.0}},
]


def of(*sets: str) -> Config:
    return load_config("cifar100", sets)


@pytest.mark.parametrize("recipe", ["default", "paper"])
@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: " ".join(changes))
def test_a_variant_is_what_the_same_words_in_a_file_are(
    changes: dict[str, Any], recipe: str
) -> None:
    sets = [f"{path}={json.dumps(value)}" for path, value in changes.items()]
    base, written = of(f"distill.recipe={recipe}"), of(f"distill.recipe={recipe}", *sets)
    assert changed(base, changes, "variant").distill == written.distill
    # In a process that was given the whole configuration, too.
    travelled = Config.model_validate(json.loads(base.model_dump_json()))
    assert changed(travelled, changes, "variant").distill == written.distill


def test_what_is_said_stays() -> None:
    base = of("distill.lr=0.07", "distill.schedule=steps")
    found = changed(base, {"distill.batch_size": 256, "distill.recipe": "paper"}, "variant").distill
    assert (found.lr, found.schedule, found.warmup_epochs) == (0.07, "steps", 0.0)
    assert found.objective == base.distill.objective


@pytest.mark.parametrize("before", ["1.0", "auto", "{weight: auto, ratio: 0.5}", "null"])
@pytest.mark.parametrize("after", [0.3, "auto"])
def test_a_ratio_that_nobody_said_goes_with_the_weight(before: str, after: float | str) -> None:
    base = of(f"distill.objective={{ega: {before}, kd: 1}}")
    found = changed(base, {"distill.objective.ega.weight": after}, "variant").distill.objective.ega
    assert found is not None
    said = 0.5 if "ratio" in before else "auto" if after == "auto" else 1.0
    assert (found.weight, found.ratio) == (after, said)
    both = {"distill.objective.ega.weight": after, "distill.objective.ega.ratio": 0.7}
    told = changed(base, both, "variant").distill.objective.ega
    assert told is not None
    assert told.ratio == 0.7


def test_nothing_follows_from_what_no_recipe_looks_at() -> None:
    tree = of().model_dump(mode="json")
    assert followed(tree, {"distill.objective.ega.edge_weight": 3.0, "distill.seed": 1}) == {}
    # What does not fit is explained where it is checked.
    assert followed(tree, {"distill.batch_size": "many"}) == {}
