"""`weight: auto` keeps an objective's gradient at the student's features at a ratio."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from egapipe.pipeline.config.objectives import ObjectiveConfig
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.results.durable import durable
from egapipe.stages.distill.model.distillation import Distillation
from egapipe.stages.distill.model.forward import OWN
from egapipe.stages.distill.model.student import Seen
from egapipe.stages.distill.objectives import build_objective
from egapipe.stages.distill.objectives.balance import ENOUGH, FIRST, Balance, ratio_within
from egapipe.stages.distill.setup import prepare
from egapipe.stages.distill.training.gradient import OnePass, TwoPasses
from egapipe.stages.distill.workers.world import World
from tests.stages.distill.conftest import MakeConfig
from tests.stages.distill.objectives import samples
from tests.stages.distill.test_gradient import ALONE, IDLE, batch, distillation

RATIO = 0.5


def automatic(name: str, **changes) -> Distillation:
    """A distillation whose one objective has an automatic weight."""
    model = distillation(objective=name, **changes)
    terms = {name: {"weight": "auto", "ratio": RATIO}}
    model.objective = build_objective(ObjectiveConfig.model_validate(terms), samples.facts())
    return model


def gradient_norms(model: Distillation, name: str) -> tuple[float, float]:
    """||dCE/df|| and ||dL/df|| by the definition: by autograd, at the features of all rows."""
    seen = batch()
    features = model.student.features(seen.images).detach().requires_grad_()
    node, logits = model.student.head(features)
    teacher = model.teacher_head(seen.features.float())
    outputs = model.outputs(seen)._replace(
        students={OWN: Seen(node, logits)}, teacher_node=teacher[0], teacher_logits=teacher[1]
    )
    objective = model.objective
    losses = model.losses(outputs, seen)
    weight = losses.parts[f"{name}_weight"].item()
    ce, value = losses.parts["ce"], losses.parts[name]
    found = torch.autograd.grad(losses.total, features, retain_graph=True)[0]
    plain = distillation(objective=name)
    plain.load_state_dict(
        {k: v for k, v in model.state_dict().items() if "balance" not in k}, strict=True
    )
    plain.objective.weights = {name: 0.0}
    node, logits = plain.student.head(features)
    alone = plain.losses(outputs._replace(students={OWN: Seen(node, logits)}), seen).total
    (of_ce,) = torch.autograd.grad(alone, features)
    assert ce > 0
    assert value != 0
    del objective
    return of_ce.norm().item(), ((found - of_ce) / weight).norm().item()


@pytest.mark.parametrize("name", ["ega", "kd", "ccl", "fitnet"])
@pytest.mark.parametrize("passes", [1, 2])
def test_the_gradients_stand_at_the_ratio(name: str, passes: int) -> None:
    """The second time that it sees a batch it knows both norms, which do not depend on weights."""
    model = automatic(name)
    gradient = OnePass(model, ALONE) if passes == 1 else TwoPasses(model, ALONE, 20)
    first = gradient(batch(), IDLE)
    assert first.parts[f"{name}_weight"].item() == pytest.approx(FIRST)
    second = gradient(batch(), IDLE)
    of_ce, of_objective = gradient_norms(model, name)
    assert second.parts[f"{name}_weight"].item() == pytest.approx(
        RATIO * of_ce / of_objective, rel=1e-4
    )


def test_the_mean_is_that_of_all_steps_so_far() -> None:
    balance, one = Balance({"a": 2.0}), torch.ones(())
    grads = {"cross-entropy": [1.0, 3.0], "a": [4.0, 0.0]}
    for step in range(2):
        weight = balance.weight("a")
        for name, values in grads.items():
            tensor = torch.zeros(1, 1, requires_grad=True)
            tensor.grad = torch.full((1, 1), values[step]) * (weight if name == "a" else 1.0)
            balance._taps[name] = (tensor, None, 1)
        balance.observe(lambda node, logits: node, one, lambda total: total)  # type: ignore[arg-type, return-value]
    torch.testing.assert_close(balance.norms, torch.tensor([2.0, 2.0]))
    assert balance.weight("a").item() == pytest.approx(2.0)


def test_an_overflow_is_no_measurement() -> None:
    model = automatic("ega")
    gradient = OnePass(model, ALONE)
    gradient(batch(), IDLE)
    before = {k: v.clone() for k, v in model.objective.state_dict().items()}
    for parameter in model.student.head.parameters():
        parameter.data.fill_(torch.inf)
    gradient(batch(), IDLE)
    after = model.objective.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_batches_without_a_label_leave_the_first_weight() -> None:
    model = automatic("kd")
    gradient = OnePass(model, ALONE)
    bare = replace(batch(), labels=torch.full_like(batch().labels, -1))
    for _ in range(3):
        assert gradient(bare, IDLE).parts["kd_weight"].item() == pytest.approx(FIRST)
    gradient(batch(), IDLE)
    assert gradient(batch(), IDLE).parts["kd_weight"].item() > 10 * FIRST


def test_the_scale_of_the_loss_changes_nothing() -> None:
    class Scaled:
        def scale(self, loss: Tensor) -> Tensor:
            return loss * 1024.0

    plain, scaled = automatic("kd"), automatic("kd")
    OnePass(plain, ALONE)(batch(), IDLE)
    OnePass(scaled, ALONE)(batch(), Scaled())  # type: ignore[arg-type]
    torch.testing.assert_close(
        scaled.objective.balance.norms,  # type: ignore[union-attr]
        plain.objective.balance.norms,  # type: ignore[union-attr]
    )


def test_grids_are_before_the_features() -> None:
    config = ObjectiveConfig.model_validate({"sp": {"features": "grid", "weight": "auto"}})
    with pytest.raises(UsageError, match=r"objective\.sp\.weight is auto.*grid is before them"):
        build_objective(config, samples.facts())


def test_what_can_be_said_of_a_weight(quick: MakeConfig) -> None:
    assert quick("distill.objective.ega=auto").distill.objective.ega.weight == "auto"  # type: ignore[union-attr]
    with pytest.raises(UsageError, match=r"ega\.weight auto is a ratio.*give it a number"):
        quick("distill.objective.ega=auto", "distill.ce_weight=0")
    with pytest.raises(UsageError, match=r"distill\.objective\.ega\.weight"):
        quick("distill.objective.ega=automatic")
    with pytest.raises(UsageError, match=r"distill\.objective\.ega\.ratio must be greater than 0"):
        quick("distill.objective.ega={weight: auto, ratio: 0}")


def test_a_training_of_few_steps_is_pulled_less(quick: MakeConfig) -> None:
    """Where nobody says the ratio; a number is a number."""
    ratios = [ratio_within(steps) for steps in (1, ENOUGH // 2, ENOUGH, 10 * ENOUGH)]
    assert ratios == sorted(ratios)
    assert 0 < ratios[0] < ratios[1] < ratios[2] == ratios[3] == 1
    alone = World.alone(torch.device("cpu"))
    terms = "distill.objective={ega: auto, kd: {weight: auto, ratio: 0.7}, rkd: 1}"
    job = prepare(quick(terms, "distill.batch_size=512"), alone)
    steps = job.loader.steps * job.config.distill.epochs
    assert steps < ENOUGH
    balance = job.model.objective.balance
    assert balance is not None
    assert balance.ratios == {"ega": ratio_within(steps), "kd": 0.7}


def test_a_ratio_beside_a_number_is_no_part_of_what_a_run_is(quick: MakeConfig) -> None:
    terms = {weight: quick(f"distill.objective={{ega: {weight}}}") for weight in ("0.5", "auto")}
    ratios = {
        w: durable(config.distill.objective)["ega"].get("ratio") for w, config in terms.items()
    }
    assert ratios == {"0.5": None, "auto": "auto"}
