"""The training loop: one epoch after another, from wherever the last checkpoint stands."""

from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

from egapipe.pipeline.results.runs import RunFolder
from egapipe.pipeline.results.tracking import Tracker
from egapipe.stages.distill.data.agreement import check_agreement
from egapipe.stages.distill.data.batch import Batch
from egapipe.stages.distill.model.forward import OWN, Losses
from egapipe.stages.distill.model.student import Student
from egapipe.stages.distill.setup import Job, evaluation_logits, make_batches
from egapipe.stages.distill.training.checkpoint import Checkpoints, Position, load_student_weights
from egapipe.stages.distill.training.diagnosis import check_step, check_steps, check_weights
from egapipe.stages.distill.training.dynamics import learning_dynamics
from egapipe.stages.distill.training.evaluation import Accuracy, Evaluation
from egapipe.stages.distill.training.first import fit_first
from egapipe.stages.distill.training.gradient import make_gradient
from egapipe.stages.distill.training.heads import teacher_accuracy
from egapipe.stages.distill.training.learner import Learner, make_learner
from egapipe.stages.distill.training.meters import Clock, epoch_means
from egapipe.stages.distill.training.schedule import learning_rate
from egapipe.stages.distill.training.step import Steps, device_settings
from egapipe.stages.distill.workers.equal import make_equal
from egapipe.stages.distill.workers.together import agreed
from egapipe.stages.distill.workers.totals import over_workers

Report = Callable[[int, Mapping[str, float]], None]
Stepped = Callable[[Position], None]

# On a CPU every step is looked at before it moves the weights. On a GPU a look waits for all steps
# before it; until then a step that is not finite moves nothing.
FINITE_EVERY = 200


def fit(
    job: Job,
    run: RunFolder,
    report: Report,
    stepped: Stepped = lambda at: None,
    *,
    settled: bool = False,
) -> dict[str, float]:
    """Train to the last epoch and return the results for the summary.

    Continues from the run's last checkpoint; on a CPU the weights end up the same, bit for bit, as
    without the interruption. `report(epoch, metrics)` is called on every worker after each epoch,
    `stepped(position)` after each step. settled: report an epoch when its checkpoint is written,
    not while it is. Raises TrainingError when loss, gradient or weights are not finite, and when a
    sampled row is not what it was made from; the last checkpoint is kept.
    """
    checkpoints = Checkpoints.of(run)
    with closing(checkpoints), device_settings(job.config.distill, job.world.device):
        told = partial(_settled, job, checkpoints, report) if settled else report
        return _fit(job, run, checkpoints, told, stepped)


def _fit(
    job: Job, run: RunFolder, checkpoints: Checkpoints, report: Report, stepped: Stepped
) -> dict[str, float]:
    config, world = job.config.distill, job.world
    learner = make_learner(job.model, config, world.device)
    at = agreed(world, partial(checkpoints.resume, learner))
    if at == Position():
        fit_first(learner, job.loader)
    steps = make_steps(job, learner)
    tracker = Tracker(run, at.epoch) if world.is_main else None

    # Choices are made on these; where they are not the test images, those are measured at the end.
    choice = job.validation or job.test
    split = "test" if job.validation is None else "validation"
    # A run that was killed after its last epoch has its accuracy still to be measured.
    ended = at.epoch >= config.epochs
    measured = evaluate(job, learner, choice) if ended else Accuracies()
    while at.epoch < config.epochs:
        train_epoch(job, steps, learner, checkpoints, at, stepped)
        last = at.epoch + 1 == config.epochs
        due = last or (at.epoch + 1) % config.eval_epochs == 0
        measured = evaluate(job, learner, choice) if due else Accuracies()
        accuracy = measured.own
        tested = measured.named(f"{split}/")
        tested |= learning_dynamics(job, choice, split, accuracy)
        metrics = {**epoch_means(at.sums), **tested}
        metrics["lr"] = learning_rate(config, at.epoch, job.loader.steps - 1, job.loader.steps)
        epoch, best = at.epoch, accuracy is not None and accuracy.top1 > at.best_top1
        if accuracy is not None and best:
            at.best_top1, at.best_epoch = accuracy.top1, epoch
        at.epoch, at.step, at.sums = epoch + 1, 0, {}
        if tracker is not None:
            tracker.log(epoch, metrics)
        if best or at.epoch % config.checkpoint_epochs == 0 or at.epoch == config.epochs:
            _save(job, learner, checkpoints, at, best=best)
        report(epoch, metrics)
    if tracker is not None:
        tracker.close()
    world.agree(checkpoints.wait)
    if job.validation is None:
        return _results(job, at, measured)
    validated = measured._replace(peers={}).named("validation_")
    tested = _results(job, at, evaluate(job, learner, job.test))
    return {**tested, **validated, **chosen(job, checkpoints, at)}


def _settled(
    job: Job, checkpoints: Checkpoints, report: Report, epoch: int, metrics: Mapping[str, float]
) -> None:
    job.world.agree(checkpoints.wait)
    report(epoch, metrics)


def make_steps(job: Job, learner: Learner) -> Steps:
    """The steps of a job, with its rows on the device where they fit."""
    config, world = job.config.distill, job.world
    gradient = make_gradient(job.model, world, config.micro_batch_size)
    return Steps(config, world, learner, gradient, make_batches(job), job.loader.steps)


def train_epoch(
    job: Job,
    steps: Steps,
    learner: Learner,
    checkpoints: Checkpoints,
    at: Position,
    stepped: Stepped,
) -> None:
    """Run the steps of an epoch from `at.step` on, adding to `at.sums`."""
    config, world = job.config.distill, job.world
    job.model.train()
    before, spent = at.sums, at.seconds
    clock = Clock(world.device)
    with clock.waiting():
        steps.begin(at.epoch, at.step)
    first, last = at.step, job.loader.steps - 1
    inspect = partial(_inspect, job, steps, learner, checkpoints, at)
    while at.step <= last:
        steps.advance(clock)
        if at.step == first:
            world.agree(partial(_check_agreement, job, steps, at.epoch))
        steps.run(at.epoch, at.step, None if world.device.type == "cuda" else inspect)
        due = config.checkpoint_steps is not None and (at.step + 1) % config.checkpoint_steps == 0
        if due or at.step == last or (at.step + 1) % FINITE_EVERY == 0:
            check = partial(check_steps, steps, learner, at, checkpoints)
            world.agree(steps.batches.checked(check))
        at.step += 1
        stepped(at)
        if due and at.step <= last:
            at.sums = over_workers(before, steps.sums.read(clock), world)
            at.seconds = spent + clock.lap()
            _save(job, learner, checkpoints, at)
    at.sums = over_workers(before, steps.sums.read(clock), world)
    at.seconds = spent + clock.lap()


def _check_agreement(job: Job, steps: Steps, epoch: int) -> None:
    check_agreement(steps.batches.bare(), epoch, job.sources, job.config.distill)


def _inspect(
    job: Job,
    steps: Steps,
    learner: Learner,
    checkpoints: Checkpoints,
    at: Position,
    batch: Batch,
    losses: Losses,
) -> None:
    check = partial(check_step, learner, batch, losses, at, checkpoints)
    job.world.agree(steps.batches.checked(check))


class Accuracies(NamedTuple):
    """Accuracy on some images, where there are any: the student's, that of the moving average of
    its weights, where one is kept, and its peers' by their names."""

    own: Accuracy | None = None
    average: Accuracy | None = None
    peers: Mapping[str, Accuracy] = MappingProxyType({})

    def named(self, prefix: str = "") -> dict[str, float]:
        """As metrics and results have it, each name behind `prefix`."""
        both = {**_named(prefix, self.own), **_named(f"{prefix}ema_", self.average)}
        peers = {f"{prefix}peers.{name}.top1": one.top1 for name, one in self.peers.items()}
        return {**both, **peers}


def evaluate(job: Job, learner: Learner, images: Evaluation | None) -> Accuracies:
    """What there is to measure on some images, where there are any."""
    if images is None:
        return Accuracies()
    job.model.eval()
    make_equal(learner, job.world)

    def accuracy(student: Student) -> Accuracy:
        return images.accuracy(evaluation_logits(student, job.config.distill), job.world)

    peers = {name: accuracy(one.student) for name, one in job.model.learning.items()}
    own, average = peers.pop(OWN), None
    if learner.average is not None:
        with learner.average.applied():
            average = accuracy(job.model.student)
    return Accuracies(own, average, peers)


def chosen(job: Job, checkpoints: Checkpoints, at: Position) -> dict[str, float]:
    """Accuracy of the best checkpoint, on the validation that it is the best by and on test images.

    The student has its weights afterwards.
    """
    results = {"best_validation_top1": at.best_top1, "best_epoch": at.best_epoch}
    if not job.world.is_main:
        # Of a run elsewhere, this worker has the one that it went on from alone.
        checkpoints.fetch("best")
    folder = checkpoints.find("best")
    if folder is None or job.test is None:
        return results
    job.world.agree(partial(load_student_weights, job.model.student, folder))
    logits = evaluation_logits(job.model.student.eval(), job.config.distill)
    return {**results, "best_top1": job.test.accuracy(logits, job.world).top1}


def _save(
    job: Job, learner: Learner, checkpoints: Checkpoints, at: Position, *, best: bool = False
) -> None:
    make_equal(learner, job.world)
    job.world.agree(partial(check_weights, learner.model, at, checkpoints))
    save = partial(checkpoints.save, learner, at, best=best)
    job.world.agree(save if job.world.is_main else lambda: None)


def _named(prefix: str, accuracy: Accuracy | None) -> dict[str, float]:
    if accuracy is None:
        return {}
    return {f"{prefix}top1": accuracy.top1, f"{prefix}top5": accuracy.top5}


def _results(job: Job, at: Position, measured: Accuracies) -> dict[str, float]:
    results = measured.named()
    if measured.own is not None and job.validation is None:
        results |= {"best_top1": at.best_top1, "best_epoch": at.best_epoch}
    if job.teacher_test is not None:
        features, labels = job.teacher_test
        head = job.model.teacher_head.eval()
        teacher = teacher_accuracy(head, features, labels, job.world.device)
        results |= {"teacher_top1": teacher.top1}
    return {**results, "train_seconds": at.seconds}
