from dataclasses import fields
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from egapipe.pipeline.config.objectives import EgaOptions, ObjectiveConfig
from egapipe.stages.distill.objectives import (
    REGISTRY,
    Objective,
    Pair,
    WeightedSum,
    build_objective,
    ega_loss,
)


class LogitDistance(Objective):
    """An objective with a parameter, a buffer and a need of its own."""

    needs = frozenset({"student_logits", "teacher_logits"})

    def __init__(self):
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
    assert set(ObjectiveConfig.model_fields) == set(REGISTRY)


@pytest.mark.parametrize("name", REGISTRY)
def test_needs_are_fields_of_the_pair(name):
    assert REGISTRY[name].needs <= {field.name for field in fields(Pair)}


def test_one_objective_with_its_weight():
    pair = a_pair()
    objective = build_objective(ObjectiveConfig(ega=EgaOptions(weight=3, edge_weight=0.3)))
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
    assert list(objective.parameters()) == []


def test_a_sum_of_several(monkeypatch):
    """Another objective is one more line in the registry and field of the configuration."""
    monkeypatch.setitem(REGISTRY, "distance", lambda options: LogitDistance())
    config = SimpleNamespace(ega=EgaOptions(weight=0.5), distance=SimpleNamespace(weight=10.0))
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


def test_an_objective_without_a_formula_is_refused():
    class Formless(Objective):
        needs = frozenset()

    with pytest.raises(TypeError, match="abstract"):
        Formless()
