from dataclasses import fields
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from egapipe.pipeline.config import load_config
from egapipe.pipeline.config.objectives import EgaOptions, KdOptions, ObjectiveConfig
from egapipe.pipeline.errors import UsageError
from egapipe.stages.distill.objectives import (
    REGISTRY,
    Objective,
    Pair,
    WeightedSum,
    build_objective,
    ega_loss,
    find_objective,
    kd_loss,
)
from tests.stages.distill.objectives.samples import CONFIGS, build, facts, pair, seen_by


class LogitDistance(Objective):
    """An objective with a parameter, a buffer and a need of its own."""

    needs = frozenset({"student_logits", "teacher_logits"})

    def __init__(self, options=None):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, pair):
        self.calls += 1
        return self.scale * (pair.student_logits - pair.teacher_logits).abs().mean()


def a_pair(**more):
    student, teacher = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    return Pair(student=student.requires_grad_(), teacher=teacher, **more)


def test_every_field_of_the_configuration_has_an_objective():
    assert list(ObjectiveConfig.model_fields) == [*REGISTRY, "custom"]
    assert set(REGISTRY) == {
        *("ega", "kd", "fitnet", "sp", "cc", "pkt", "rkd", "nce", "irg", "crd", "ccl"),
        *("lskd", "dkd", "dist", "unic", "rrd", "cka", "itrd", "simkd", "gram", "sskd"),
        *("at", "iusp", "dreamteacher", "dogo", "igsd", "lsp", "hashing", "embeddistill"),
    }


@pytest.mark.parametrize("name", CONFIGS)
def test_needs_are_fields_of_the_pair(name):
    assert build(name).needs <= {field.name for field in fields(Pair)}


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_not_declared_is_not_needed(name):
    """The loop provides what `needs` and `features` name, and may leave out everything else."""
    objective = build(name)
    whole = seen_by(objective, pair(6))
    given = {field: getattr(whole, field) for field in objective.needs | {"student", "teacher"}}
    compared = {n for one in objective.objectives.values() for n in one.features}
    features = {n: whole.features[n] for n in compared}
    loss, _ = objective(Pair(**given, features=features, turns=whole.turns))
    assert loss.isfinite()


def test_one_objective_with_its_weight():
    pair = a_pair()
    objective = build_objective(ObjectiveConfig(ega=EgaOptions(weight=3.0, edge_weight=0.3)))
    total, values = objective(pair)
    ega = ega_loss(pair.student, pair.teacher, edge_weight=0.3)
    torch.testing.assert_close(total, 3 * ega)
    torch.testing.assert_close(values, {"ega": ega.detach()})
    assert objective.needs == {"student", "teacher"}
    assert not values["ega"].requires_grad
    assert total.requires_grad


def test_none_at_all_is_zero():
    objective = build_objective(ObjectiveConfig())
    total, values = objective(a_pair())
    assert total == 0
    assert total.shape == ()
    assert values == {}
    assert objective.needs == frozenset()
    assert objective.replicated == frozenset()
    assert list(objective.parameters()) == []


def test_a_sum_of_several():
    """The paper's ega + kd, in the short form and in the long one."""
    config = ObjectiveConfig.model_validate({"ega": 1.0, "kd": {"weight": 0.5, "temperature": 2.0}})
    assert config == ObjectiveConfig(ega=EgaOptions(), kd=KdOptions(weight=0.5, temperature=2.0))
    batch = pair(8)
    total, values = build_objective(config)(batch)
    ega = ega_loss(batch.student, batch.teacher)
    kd = kd_loss(batch.student_logits, batch.teacher_logits, temperature=2.0)
    torch.testing.assert_close(total, ega + 0.5 * kd)
    assert list(values) == ["ega", "kd"]


@pytest.mark.parametrize("name", REGISTRY)
def test_every_objective_by_a_setting(name):
    config = load_config("quickstart", [f"distill.objective.{name}=0.25"])
    assert getattr(config.distill.objective, name).weight == 0.25
    objective = build_objective(config.distill.objective, facts())
    assert set(objective.weights) == {"ega", name}


def test_a_wrong_name_gives_the_nearest():
    with pytest.raises(UsageError, match=r"no objective 'egaa', did you mean ega\? Known: ega, kd"):
        find_objective("egaa")
    with pytest.raises(UsageError, match=r"distill.objective.fit_net is not a key.*fitnet"):
        load_config("quickstart", ["distill.objective.fit_net=1.0"])
    with pytest.raises(UsageError, match=r"distill.objective.rkd.angle is not a key.*angle_weight"):
        load_config("quickstart", ["distill.objective.rkd={angle: 1.0}"])


def test_another_objective_is_a_line_in_the_registry(monkeypatch):
    """Its parameters and buffers are the sum's."""
    monkeypatch.setitem(REGISTRY, "distance", LogitDistance)
    config = [
        ("ega", EgaOptions(weight=0.5)),
        ("distance", SimpleNamespace(weight=10.0, ratio=1.0)),
    ]
    objective = build_objective(config)
    pair = a_pair(student_logits=torch.ones(6, 3), teacher_logits=torch.zeros(6, 3))
    total, values = objective(pair)
    assert values["distance"] == 2
    torch.testing.assert_close(total, 0.5 * values["ega"] + 20)
    assert objective.needs == {"student", "teacher", "student_logits", "teacher_logits"}
    assert set(objective.state_dict()) == {"objectives.distance.scale", "objectives.distance.calls"}
    total.backward()
    assert objective.objectives["distance"].scale.grad == 10


def test_float64_stays_float64():
    student, teacher = torch.randn(2, 6, 4, dtype=torch.float64)
    total, _ = build_objective(ObjectiveConfig(ega=EgaOptions()))(Pair(student, teacher))
    assert total.dtype == torch.float64
    assert total == ega_loss(student, teacher)


def test_a_missing_need_is_named():
    objective = WeightedSum({"distance": LogitDistance()}, {"distance": 1.0})
    with pytest.raises(ValueError, match="distance: the batch lacks teacher_logits"):
        objective(a_pair(student_logits=torch.ones(6, 3)))
    with pytest.raises(ValueError, match="the batch lacks teacher_logits"):
        a_pair().need("teacher_logits")


@pytest.mark.parametrize("name", ["sp", "fitnet", "unic", "gram"])
def test_features_that_nobody_has_are_refused(name):
    config = ObjectiveConfig.model_validate({name: {"features": "grid"}})
    for known in (None, facts(shapes={})):
        with pytest.raises(UsageError, match=rf"objective\.{name}\.features is grid, but.*facts"):
            build_objective(config, known)


@pytest.mark.parametrize("name", ["fitnet", "unic", "gram"])
@pytest.mark.parametrize("shapes", [((3, 4, 4), (5, 7)), ((3, 4, 4, 4), (3, 4, 4, 4))])
def test_features_that_do_not_go_together_are_refused(name, shapes):
    config = ObjectiveConfig.model_validate({name: {"features": "level"}})
    with pytest.raises(UsageError, match=rf"{name}\.features: of level the student has \[3, 4"):
        build_objective(config, facts(shapes={"level": shapes}))


@pytest.mark.parametrize("name", ["sp", "fitnet", "gram", "unic"])
def test_of_several_pairs_the_losses_are_added_up(name):
    names, batch = ["grid", "tokens"], pair(6)
    both, *each = (
        build_objective(ObjectiveConfig.model_validate({name: {"features": f}}), facts()).double()
        for f in (names, *names)
    )
    for one, pair_name in zip(each, names, strict=True):
        own = {k: v for k, v in both.state_dict().items() if f"_{pair_name}." in k}
        one.load_state_dict(own)
    assert both.objectives[name].features == tuple(names)
    torch.testing.assert_close(both(batch)[0], sum(one(batch)[0] for one in each))


def test_a_checkpoint_from_when_there_was_one_pair_is_loaded():
    config = ObjectiveConfig.model_validate(
        {"fitnet": {"features": "grid"}, "unic": {"features": "grid"}}
    )
    objective = build_objective(config, facts())
    old = {"fitnet.regressor": 1.0, "unic.projector": 2.0}
    state = {
        f"objectives.{name}.{part}": torch.full((4, 3, 1, 1)[: 4 if part == "weight" else 1], value)
        for name, value in old.items()
        for part in ("weight", "bias")
    }
    objective.load_state_dict(state)
    values = {name: set(p.flatten().tolist()) for name, p in objective.named_parameters()}
    assert values == {
        "objectives.fitnet.regressors.pair_grid.weight": {1.0},
        "objectives.fitnet.regressors.pair_grid.bias": {1.0},
        "objectives.unic.projectors.pair_grid.weight": {2.0},
        "objectives.unic.projectors.pair_grid.bias": {2.0},
    }


def test_a_bank_needs_to_know_the_data_set():
    config = ObjectiveConfig.model_validate({"crd": 1.0})
    with pytest.raises(ValueError, match="facts"):
        build_objective(config)
    with pytest.raises(UsageError, match=r"contrasts rows, the data set has 1: "):
        build_objective(config, facts(torch.tensor([0])))


def test_an_objective_without_a_formula_is_refused():
    class Formless(Objective):
        needs = frozenset()

    with pytest.raises(TypeError, match="abstract"):
        Formless()
