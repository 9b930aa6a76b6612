"""The training loop: one epoch after another, from wherever the last checkpoint stands."""

from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from egapipe.pipeline.errors import TrainingError
from egapipe.pipeline.runs import RunFolder
from egapipe.pipeline.tracking import Tracker
from egapipe.stages.distill.checkpoint import Checkpoints, Position
from egapipe.stages.distill.evaluation import Accuracy
from egapipe.stages.distill.heads import teacher_accuracy, train_teacher_head
from egapipe.stages.distill.meters import Clock, Sums, epoch_means
from egapipe.stages.distill.model import Losses
from egapipe.stages.distill.schedule import clip_gradient, learning_rate, make_optimizer
from egapipe.stages.distill.setup import Job, evaluation_logits

Report = Callable[[int, Mapping[str, float]], None]
Stepped = Callable[[Position], None]

# On a GPU, looking at a loss waits for the step; on a CPU it costs nothing.
FINITE_EVERY = {"cuda": 50, "cpu": 1}


def fit(
    job: Job, run: RunFolder, report: Report, stepped: Stepped = lambda at: None
) -> dict[str, float]:
    """Train to the last epoch and return the results for the summary.

    Continues from the run's last checkpoint; on a CPU the weights end up the same, bit for bit, as
    without the interruption. `report(epoch, metrics)` is called on every worker after each epoch,
    `stepped(position)` after each step. Raises TrainingError when the loss is not finite; the last
    good checkpoint is kept.
    """
    config, world = job.config.distill, job.world
    optimizer = _optimizer(job)
    checkpoints = Checkpoints(run.checkpoints)
    at = checkpoints.resume(job.model, optimizer)
    if config.head.mode == "sequential" and at == Position():
        train_teacher_head(job.model.teacher_head, job.loader)
    step_model = _distributed(job)
    tracker = Tracker(run, at.epoch) if world.is_main else None

    def save(best: bool) -> None:
        if world.is_main:
            checkpoints.save(job.model, optimizer, at, best=best)

    # A run that was killed after its last epoch has its accuracy still to be measured.
    accuracy = evaluate(job) if at.epoch >= config.epochs else None
    while at.epoch < config.epochs:
        train_epoch(job, step_model, optimizer, at, save, stepped)
        rate = optimizer.param_groups[0]["lr"]
        accuracy = evaluate(job)
        metrics = {**epoch_means(at.sums, world.total), **_test(accuracy), "lr": rate}
        epoch, best = at.epoch, accuracy is not None and accuracy.top1 > at.best_top1
        if accuracy is not None and best:
            at.best_top1, at.best_epoch = accuracy.top1, epoch
        at.epoch, at.step, at.sums = epoch + 1, 0, {}
        if tracker is not None:
            tracker.log(epoch, metrics)
        if best or at.epoch % config.checkpoint_epochs == 0 or at.epoch == config.epochs:
            save(best)
        report(epoch, metrics)
    if tracker is not None:
        tracker.close()
    return _results(job, at, accuracy)


def train_epoch(
    job: Job,
    step_model: nn.Module,
    optimizer: torch.optim.Optimizer,
    at: Position,
    save: Callable[[bool], None],
    stepped: Stepped,
) -> None:
    """Run the steps of an epoch from `at.step` on, adding to `at.sums`."""
    config, world = job.config.distill, job.world
    job.model.train()
    sums = Sums(at.sums)
    clock = Clock()
    for batch in clock.waiting(job.loader.epoch(at.epoch, at.step)):
        torch.manual_seed(step_seed(config.seed, at.epoch, at.step, world.rank))
        _set_rate(optimizer, learning_rate(config, at.epoch, at.step, job.loader.steps))
        losses = cast(Losses, step_model(batch))
        optimizer.zero_grad()
        losses.total.backward()
        clip_gradient(optimizer, config)
        optimizer.step()
        at.step += 1
        sums.add(losses, batch)
        stepped(at)
        due = config.checkpoint_steps is not None and at.step % config.checkpoint_steps == 0
        if due or at.step % FINITE_EVERY[world.device.type] == 0 or at.step == job.loader.steps:
            _check_finite(losses, at)
        if due and at.step < job.loader.steps:
            at.sums = sums.read(clock)
            save(False)
    at.sums = sums.read(clock)
    at.seconds += clock.lap()


def evaluate(job: Job) -> Accuracy | None:
    """The student's accuracy on the test images, where there are some."""
    if job.test is None:
        return None
    job.model.eval()
    logits = evaluation_logits(job.model.student, job.config.distill)
    return job.test.accuracy(logits, job.world)


def step_seed(seed: int, epoch: int, step: int, rank: int) -> int:
    """Seed of everything random in one step on one worker (dropout in a student, for example)."""
    return ((seed * 1_000_003 + epoch) * 1_000_003 + step) * 4099 + rank & 0x7FFF_FFFF_FFFF_FFFF


def _optimizer(job: Job) -> torch.optim.SGD:
    config, model = job.config.distill, job.model
    if config.head.mode == "sequential":
        model.teacher_head.requires_grad_(False)
    learners = nn.ModuleList([model.student, model.objective])
    return make_optimizer([(learners, config.lr), (model.teacher_head, config.head.lr)], config)


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    # The first group is the student's; the teacher's head keeps its rate, as in the protocol.
    optimizer.param_groups[0]["lr"] = rate


def _distributed(job: Job) -> nn.Module:
    if job.world.group is None:
        return job.model
    equal = [f"objective.{name}" for name in job.model.objective.replicated]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(job.model, equal)
    return DistributedDataParallel(job.model, process_group=job.world.group)


def _check_finite(losses: Losses, at: Position) -> None:
    if bool(torch.isfinite(losses.total)):
        return
    parts = ", ".join(f"{name} {float(value):.4g}" for name, value in losses.parts.items())
    raise TrainingError(
        f"the loss is not finite at epoch {at.epoch}, step {at.step} ({parts}): "
        "lower distill.lr or the objective's weight; the last checkpoint is kept"
    )


def _test(accuracy: Accuracy | None) -> dict[str, float]:
    return {} if accuracy is None else {"test/top1": accuracy.top1, "test/top5": accuracy.top5}


def _results(job: Job, at: Position, accuracy: Accuracy | None) -> dict[str, float]:
    results: dict[str, float] = {}
    if accuracy is not None:
        results = {"top1": accuracy.top1, "top5": accuracy.top5}
        results |= {"best_top1": at.best_top1, "best_epoch": at.best_epoch}
    if job.teacher_test is not None:
        features, labels = job.teacher_test
        head = job.model.teacher_head.eval()
        teacher = teacher_accuracy(head, features, labels, job.world.device)
        results |= {"teacher_top1": teacher.top1}
    return {**results, "train_seconds": at.seconds}
