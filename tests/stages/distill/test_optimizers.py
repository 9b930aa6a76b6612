"""Who moves which parameter, and what decays: SGD, AdamW and Muon."""

import pytest
import torch
from torch import nn

from egapipe.pipeline.config.distill import DistillConfig
from egapipe.pipeline.config.recipes import filled
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.results.runs import run_folder
from egapipe.stages import distill
from egapipe.stages.distill.model.precision import PRECISIONS
from egapipe.stages.distill.training.gradient import OnePass
from egapipe.stages.distill.training.learner import Learner, make_learner
from egapipe.stages.distill.training.optimizers import (
    Muon,
    clip_gradient,
    make_optimizers,
    sgd,
    student_groups,
)
from tests.stages.distill.conftest import MakeConfig
from tests.stages.distill.test_gradient import ALONE, CPU, batch, distillation

KINDS = ["sgd", "adamw", "muon"]


def convolved() -> nn.Module:
    """36 features of 8 x 8 images, from a matrix, scales and biases."""
    parts = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(3)]
    return nn.Sequential(*parts, nn.Flatten())


def gradient_step(limit: float | None) -> list[torch.Tensor]:
    """Gradients of a student with gradient (3, 4), norm 5, and a head with (6, 8), norm 10."""
    config = DistillConfig(clip_grad_norm=limit)
    student, head = nn.Linear(2, 1, bias=False), nn.Linear(2, 1, bias=False)
    optimizer = sgd([(student, 1.0), (head, 1.0)], config)
    (student(torch.tensor([3.0, 4.0])) + head(torch.tensor([6.0, 8.0]))).backward()
    clip_gradient([optimizer], config)
    return [student.weight.grad.squeeze(0), head.weight.grad.squeeze(0)]  # type: ignore[union-attr]


@pytest.mark.parametrize(("limit", "kept"), [(None, 1.0), (10.0, 1.0), (5.5, 1.0), (1.0, 0.2)])
def test_a_long_gradient_of_the_student_is_scaled_down(limit: float | None, kept: float) -> None:
    student, head = gradient_step(limit)
    torch.testing.assert_close(student, torch.tensor([3.0, 4.0]) * kept, rtol=1e-5, atol=0)
    torch.testing.assert_close(head, torch.tensor([6.0, 8.0]), rtol=0, atol=0)


def test_neither_biases_nor_scales_decay_where_weights_alone_do() -> None:
    config = DistillConfig(decay_on="weights", lr=1.0, momentum=0.0, weight_decay=0.1)
    student, head = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), nn.Linear(2, 1)
    for parameter in (*student.parameters(), *head.parameters()):
        nn.init.ones_(parameter)
        parameter.grad = torch.zeros_like(parameter)
    optimizer = sgd([(student, 1.0), (head, 0.5)], config)
    # Both groups of the student have its rate, none of the head's.
    assert len(student_groups([optimizer])) == 2
    assert [group["lr"] for group in optimizer.param_groups] == [1.0, 1.0, 0.5, 0.5]
    optimizer.step()
    moved = {name: p.detach().mean().item() for name, p in student.named_parameters()}
    assert moved == pytest.approx({"0.weight": 0.9, "0.bias": 1, "1.weight": 1, "1.bias": 1})
    assert head.weight.mean().item() == pytest.approx(0.95)
    assert head.bias.item() == 1


def learner(kind: str, **changes: object) -> Learner:
    config = DistillConfig.model_validate({"optimizer": kind, "lr": 0.01, **changes})
    model = distillation(convolved, precision=PRECISIONS[config.precision])
    made = make_learner(model, config, CPU)
    made.set_rate(config.lr)
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_has_one_optimiser(kind: str) -> None:
    made = learner(kind)
    had = [p for o in made.optimizers for group in o.param_groups for p in group["params"]]
    assert sorted(map(id, had)) == sorted(map(id, made.model.parameters()))
    named = {id(p): name for name, p in made.model.named_parameters()}
    first = {named[id(p)] for group in made.optimizers[0].param_groups for p in group["params"]}
    if kind == "muon":
        assert first == {"student.backbone.0.weight"}
    # The head's rate is its own, and SGD's.
    [heads] = [g for o in made.optimizers for g in o.param_groups if g["place"] == 1]
    assert heads["lr"] == DistillConfig().head.lr
    assert isinstance(made.optimizers[-1], torch.optim.SGD)


def test_adamw_of_a_gpu_says_that_it_may_be_recorded() -> None:
    config = DistillConfig(optimizer="adamw")
    for fused in (True, False):
        made = make_optimizers(distillation(convolved), config, fused=fused)
        assert {group["capturable"] for group in made[0].param_groups} == {fused}


@pytest.mark.parametrize("kind", KINDS)
def test_what_no_decay_names_stays_where_there_is_no_gradient(kind: str) -> None:
    made = learner(kind, weight_decay=10.0, no_decay=["0.w*", "1.bias"])
    before = {name: p.detach().clone() for name, p in made.model.named_parameters()}
    for parameter in made.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    made.step(DistillConfig(), 0)
    still = {n for n, p in made.model.named_parameters() if torch.equal(p.detach(), before[n])}
    backbone = {n.removeprefix("student.backbone.") for n in still if "backbone" in n}
    # The scale of a normalisation decays unless it is named, or `decay_on` is weights.
    assert backbone == {"0.weight", "1.bias"}


def test_muon_has_no_token_nor_embeddings_of_positions() -> None:
    """They are many dimensions of one row."""

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.position = nn.Parameter(torch.zeros(1, 4, 36))
            self.layer = nn.Linear(192, 36)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            hidden: torch.Tensor = self.layer(images.flatten(1)) + self.position.mean(dim=1)
            return hidden

    model = distillation(Tokens)
    made = make_optimizers(model, DistillConfig(optimizer="muon"))
    [group] = made[0].param_groups
    named = dict(model.student.backbone.named_parameters())
    assert [id(p) for p in group["params"]] == [id(named["layer.weight"])]


def test_muon_moves_a_convolution_as_torchs_own_moves_its_matrix() -> None:
    """Rate and decay included, over steps, for a weight that lies channels last in memory."""
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(6, 4, 3, 3).contiguous(memory_format=torch.channels_last))
    matrix = nn.Parameter(weight.detach().flatten(1).clone())
    config = DistillConfig(momentum=0.95, nesterov=True)
    ours = Muon([{"params": [weight], "lr": 0.1, "weight_decay": 0.5, "place": 0}], config)
    theirs = torch.optim.Muon(
        [matrix], lr=0.1, weight_decay=0.5, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    for _ in range(4):
        gradient = torch.randn(6, 4, 3, 3)
        weight.grad, matrix.grad = gradient.clone(), gradient.flatten(1).clone()
        ours.step()
        theirs.step()
        torch.testing.assert_close(weight.detach().flatten(1), matrix.detach())
    assert (weight - weight.mean()).abs().max() > 0.1


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_step_that_is_skipped_moves_nothing(kind: str) -> None:
    """As on a GPU, where a bad step is known to the device alone."""
    made = learner(kind)
    config = DistillConfig()
    bad = torch.zeros((), dtype=torch.bool)
    OnePass(made.model, ALONE)(batch(), made.scaler)
    for optimizer in made.optimizers[:-1]:
        optimizer.found_inf = bad.float()  # type: ignore[attr-defined]
        optimizer.step()
    moved = {name: p.detach().clone() for name, p in made.model.named_parameters()}
    state = [v.clone() for o in made.optimizers for s in o.state.values() for v in s.values()]
    for parameter in made.model.student.parameters():
        parameter.grad = torch.full_like(parameter, torch.nan)
    for optimizer in made.optimizers[:-1]:
        optimizer.found_inf = (~bad).float()  # type: ignore[attr-defined]
        optimizer.step()
    after = [v for o in made.optimizers for s in o.state.values() for v in s.values()]
    assert all(torch.equal(one, other) for one, other in zip(state, after, strict=True))
    named = dict(made.model.named_parameters())
    assert all(torch.equal(value, named[name].detach()) for name, value in moved.items())
    assert not config.no_decay


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_float16_step_that_overflows_is_left_out(kind: str) -> None:
    made = learner(kind, precision="float16")
    config = DistillConfig(precision="float16", clip_grad_norm=1.0)
    OnePass(made.model, ALONE)(batch(), made.scaler)
    scale, weight = made.scaler.get_scale(), made.model.student.head.node.weight
    before = weight.detach().clone()
    assert weight.grad is not None
    weight.grad[0, 0] = torch.inf
    made.step(config, 0)
    assert torch.equal(weight, before)
    assert made.scaler.get_scale() == scale / 2
    # A graph's gradient overflows until the scale fits.
    for step in range(12):
        OnePass(made.model, ALONE)(batch(), made.scaler)
        made.step(config, step)
    assert not torch.equal(weight, before)
    assert weight.isfinite().all()


def test_other_optimisers_have_rates_of_their_own(quick: MakeConfig) -> None:
    found = {kind: quick(f"distill.optimizer={kind}").distill for kind in ("adamw", "muon")}
    # The quickstart's own rate, and the recipe's where none is named.
    assert {config.lr for config in found.values()} == {quick().distill.lr}
    bare = {"student": {"name": "resnet8"}, "optimizer": "muon"}
    for recipe in ("default", "paper"):
        tree = filled({**bare, "recipe": recipe})
        assert (tree["lr"], tree["weight_decay"]) == (0.002, 0.05)
    assert filled({**bare, "batch_size": 256})["lr"] == 0.004
    assert "weight_decay" not in filled({"student": {"name": "resnet8"}})


def test_what_cannot_be_optimised_is_refused(
    quick: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=r"distill\.no_decay names 'pos_embed'.*they are "):
        distill.run(quick("distill.no_decay=[pos_embed]"))
    flat = quick("distill.student.name=torch.nn:Flatten", "distill.optimizer=muon")
    with pytest.raises(UsageError, match="muon, and the student's backbone has no matrices"):
        distill.run(flat)
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(UsageError, match=r"muon, which torch has from 2\.9 on, and this is 2\."):
        distill.run(quick("distill.optimizer=muon"))
    assert not run_folder(flat).path.exists()


def test_an_optimiser_makes_another_run(quick: MakeConfig) -> None:
    sets = ([], ["distill.optimizer=muon"], ["distill.beta2=0.99"], ["distill.no_decay=[a]"])
    assert len({run_folder(quick(*some)).path.name for some in sets}) == 4
