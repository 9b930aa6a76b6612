"""The step itself: averages, scaled losses, and what stops a training."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from egapipe.pipeline.config.distill import DistillConfig
from egapipe.pipeline.config.objectives import ObjectiveConfig
from egapipe.pipeline.errors import TrainingError, UsageError
from egapipe.pipeline.results.runs import RunFolder, run_folder
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.stages import distill
from egapipe.stages.distill.model.average import WeightAverage, average_weight
from egapipe.stages.distill.model.distillation import Distillation
from egapipe.stages.distill.model.precision import PRECISIONS
from egapipe.stages.distill.objectives import build_objective
from egapipe.stages.distill.training.checkpoint import Checkpoints, Position
from egapipe.stages.distill.training.diagnosis import check_step, check_weights
from egapipe.stages.distill.training.gradient import OnePass
from egapipe.stages.distill.training.learner import make_learner
from tests.stages.distill.conftest import MakeConfig
from tests.stages.distill.test_gradient import ALONE, CPU, batch, distillation, normed, plain
from tests.stages.distill.test_training import weights


def test_an_average_follows_the_weights() -> None:
    """By hand: 1/10 of the old one in the first step, 2/11 in the second, then the decay."""
    student = distillation(normed).student
    weight, counted = student.head.classifier.weight, student.backbone[1].num_batches_tracked
    average, expected = WeightAverage(student, 0.25), weight.detach().clone()
    for steps, decay in enumerate([1 / 10, 2 / 11, 3 / 12, 0.25, 0.25]):
        with torch.no_grad():
            weight.add_(1.0)
            counted.add_(1)
        average.update(average_weight(0.25, steps))
        expected = decay * expected + (1 - decay) * weight.detach()
    state = average.state_dict()
    torch.testing.assert_close(state["head.classifier.weight"], expected)
    assert state["backbone.1.num_batches_tracked"] == 5
    before = {name: value.clone() for name, value in student.state_dict().items()}
    with average.applied():
        torch.testing.assert_close(weight.detach(), expected)
    after = student.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_an_average_is_evaluated_and_saved_beside_the_student(quick: MakeConfig) -> None:
    done = distill.run(quick("distill.ema_decay=0.9", "distill.epochs=6"))
    bare = distill.run(quick("distill.epochs=6"))
    own = weights(done.run)
    assert all(torch.equal(value, own[name]) for name, value in weights(bare.run).items())
    averaged, last = distill.load_student(done.run, "ema"), distill.load_student(done.run)
    assert averaged.accuracy().top1 == done.summary["ema_top1"] > 20
    assert last.accuracy().top1 == done.summary["top1"]
    assert read_metrics(RunFolder(done.run))[-1]["test/ema_top1"] == done.summary["ema_top1"]
    moved = [
        not torch.equal(value, last.student.state_dict()[name])
        for name, value in averaged.student.state_dict().items()
    ]
    assert any(moved)
    assert "ema_top1" not in bare.summary
    with pytest.raises(UsageError, match=r"distill\.ema_decay"):
        distill.load_student(bare.run, "ema")


def test_a_float16_step_that_overflows_is_left_out_and_the_scale_lowered() -> None:
    config = DistillConfig(precision="float16", clip_grad_norm=1.0)
    model = distillation(precision=torch.float16)
    learner = make_learner(model, config, CPU)
    OnePass(model, ALONE)(batch(), learner.scaler)
    scale, parameter = learner.scaler.get_scale(), model.student.head.node.weight
    before = parameter.detach().clone()
    assert parameter.grad is not None
    parameter.grad[0, 0] = torch.inf
    learner.step(config, 0)
    assert torch.equal(parameter, before)
    assert learner.scaler.get_scale() == scale / 2
    OnePass(model, ALONE)(batch(), learner.scaler)
    learner.step(config, 1)
    assert not torch.equal(parameter, before)
    assert parameter.isfinite().all()


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_learns_what_float32_learns(precision: str) -> None:
    """Weights stay float32; what rounds is the forward pass: 2^-8 for bfloat16, of losses near 1.6.

    Cross-entropy alone: the gradient of a graph overflows at first in float16, and steps are left
    out until the scale fits.
    """
    losses = {}
    for name in ("float32", precision):
        model = distillation(precision=PRECISIONS[name])
        config = DistillConfig.model_validate({"precision": name, "lr": 0.02})
        model.objective = build_objective(ObjectiveConfig())
        learner = make_learner(model, config, CPU)
        steps = []
        for step in range(10):
            steps.append(OnePass(model, ALONE)(batch(), learner.scaler).parts["ce"].item())
            learner.step(config, step)
        losses[name] = steps
    assert losses["float32"][-1] < losses["float32"][0] - 0.05
    assert losses[precision] == pytest.approx(losses["float32"], abs=0.02)


class Rooted(nn.Module):
    """Finite outputs, and a gradient of 0 times infinity for the layer before the root."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(192, 36)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.layer(images.flatten(1))
        return hidden + (hidden * 0).sqrt()


def stopped(model: Distillation, checkpoints: Checkpoints, **changes: torch.Tensor) -> str:
    """What is said of the step on a batch with some columns changed."""
    data = dataclasses.replace(batch(), **changes)
    learner = make_learner(model, DistillConfig(), CPU)
    losses = OnePass(model, ALONE)(data, learner.scaler)
    with pytest.raises(TrainingError) as caught:
        check_step(learner, data, losses, Position(3, 14), checkpoints)
    said = str(caught.value)
    assert "\n" not in said
    assert "at epoch 3, step 14 (learning rate 0.05, loss " in said
    assert "no checkpoint was written yet" in said
    return said


def test_the_diagnosis_names_the_weights(tmp_path: Path) -> None:
    model = distillation()
    with torch.no_grad():
        model.student.head.classifier.bias[2] = torch.nan
    said = stopped(model, Checkpoints(tmp_path))
    assert "the loss is not finite" in said
    assert "ce nan" in said
    assert "head_ce nan" not in said
    assert "parameter student.head.classifier.bias was before it" in said
    with pytest.raises(TrainingError, match=r"student\.head\.classifier\.bias is not finite"):
        check_weights(model, Position(), Checkpoints(tmp_path))


def test_the_diagnosis_names_the_row_of_bad_features(tmp_path: Path) -> None:
    features = batch().features.clone()
    features[7, 3] = torch.inf
    said = stopped(distillation(), Checkpoints(tmp_path), features=features)
    assert f"the stored features of row {int(batch().rows[7])} are not" in said
    assert "extract again with" in said
    assert "lower distill.lr" not in said


def test_the_diagnosis_names_a_gradient(tmp_path: Path) -> None:
    said = stopped(distillation(Rooted), Checkpoints(tmp_path))
    assert said.startswith("a gradient is not finite")
    assert "the gradient of student.backbone.layer.weight is not" in said


def test_steps_that_are_finite_pass(tmp_path: Path) -> None:
    model = distillation(plain)
    learner = make_learner(model, DistillConfig(), CPU)
    losses = OnePass(model, ALONE)(batch(), learner.scaler)
    check_step(learner, batch(), losses, Position(), Checkpoints(tmp_path))
    check_weights(model, Position(), Checkpoints(tmp_path))


def test_the_last_good_checkpoint_is_named_and_kept(quick: MakeConfig) -> None:
    """The rate explodes in the third epoch; what was saved after the second still loads."""
    config = quick("distill.decay=1e18", "distill.milestones=[2]", "distill.epochs=5")
    run = run_folder(config)
    with pytest.raises(TrainingError, match=r"not finite .*epoch 2.*epoch00002-step0000000"):
        distill.run(config)
    last = Checkpoints(run.checkpoints).find("last")
    assert last is not None
    assert last.name == "epoch00002-step0000000"
    assert distill.load_student(run).accuracy().top1 > 0
    assert [line["epoch"] for line in read_metrics(run)] == [0, 1]


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["distill.compile=reduce-overhead"], "CUDA graphs need a GPU"),
        (["distill.graph_batch=2000"], "distill.graph_batch is 2000, the training images are 1437"),
    ],
)
def test_options_that_cannot_be_are_refused(quick: MakeConfig, sets: list[str], said: str) -> None:
    if torch.cuda.is_available() and "compile" in sets[0]:
        pytest.skip("there is a GPU here")
    with pytest.raises(UsageError, match=said) as caught:
        distill.run(quick(*sets))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("distill.graph_batch=8", "distill: graph_batch 8 is below batch_size 64"),
        ("distill.micro_batch_size=0", "distill.micro_batch_size must be"),
        ("distill.ema_decay=1.5", "distill.ema_decay must be"),
        ("distill.precision=half", "distill.precision must be"),
        ("distill.compile=fast", "distill.compile must be"),
    ],
)
def test_values_that_make_no_sense(quick: MakeConfig, override: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        quick(override)
    assert said in str(caught.value)


def test_what_changes_the_weights_makes_another_run(quick: MakeConfig) -> None:
    other = ["micro_batch_size=32", "graph_batch=640", "ema_decay=0.9", "precision=float16"]
    same = ["channels_last=false", "compile=default"]
    folder = run_folder(quick())
    assert {run_folder(quick(f"distill.{value}")) for value in same} == {folder}
    assert len({folder, *(run_folder(quick(f"distill.{value}")) for value in other)}) == 5
