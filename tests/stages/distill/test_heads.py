"""The teacher's head, learned first."""

import torch
from torch.nn import functional as F

from egapipe.stages.distill.setup import Job, prepare
from egapipe.stages.distill.training.heads import teacher_accuracy, train_teacher_head
from egapipe.stages.distill.workers.world import World
from tests.stages.distill.conftest import MakeConfig

ALONE = World.alone(torch.device("cpu"))
SOLVED = ("distill.head={mode: sequential, solver: lbfgs}", "distill.standardize=zscore")


def trained(quick: MakeConfig, *sets: str) -> Job:
    job = prepare(quick(*SOLVED, *sets), ALONE)
    train_teacher_head(job.model.teacher_head, job.loader)
    return job


def test_a_solved_head_stands_where_its_loss_is_flat(quick: MakeConfig) -> None:
    job = trained(quick, "distill.student_view=clean", "distill.head.epochs=200")
    head, labels = job.model.teacher_head, torch.from_numpy(job.loader.labels)
    assert not any(parameter.requires_grad for parameter in head.parameters())
    rows = torch.nonzero(labels >= 0).squeeze(1)
    features = job.loader.features.take(rows.numpy(), 0)
    head.requires_grad_(True)
    loss = F.cross_entropy(head(features)[1], labels[rows])
    weights = (head.node.weight, head.classifier.weight)  # type: ignore[union-attr]
    loss = loss + 0.005 * sum(weight.square().sum() for weight in weights)
    slopes = torch.autograd.grad(loss, list(head.parameters()))
    assert max(slope.abs().max().item() for slope in slopes) < 1e-3


def test_it_is_the_same_every_time_and_better_than_descending(quick: MakeConfig) -> None:
    one, two = (trained(quick, "distill.head.epochs=30") for _ in range(2))
    descended = trained(quick, "distill.head.solver=sgd", "distill.head.epochs=3")
    for name, value in one.model.teacher_head.state_dict().items():
        assert torch.equal(value, two.model.teacher_head.state_dict()[name])
    assert accuracy(one) > accuracy(descended)


def accuracy(job: Job) -> float:
    assert job.teacher_test is not None
    return teacher_accuracy(job.model.teacher_head, *job.teacher_test, torch.device("cpu")).top1
