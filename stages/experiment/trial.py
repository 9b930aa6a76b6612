"""A cell in a process of Ray Tune: a training in its run folder, reported epoch by epoch."""

import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from egapipe.pipeline.config import Config
from egapipe.pipeline.disk.paths import use_cache
from egapipe.pipeline.errors import EgapipeError, InUseError, TrainingError
from egapipe.pipeline.results.runs import RunFolder, folder_at
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.stages.experiment.cells import changed, named_changes
from egapipe.stages.experiment.groups import free_workers
from egapipe.stages.experiment.slots import Slots
from egapipe.stages.experiment.training import saving_at, train

CHANGES, NUMBER, RUN = "changes", "number", "run"
EPOCHS, METRICS = "epochs", "metrics"
ERROR = "error.json"
_LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class Shared:
    """What all cells that run together share; it travels to their processes.

    config: the experiment's, as plain values. metric: that is reported, which every epoch must
    have; None: none. copy_epochs: epochs between checkpoints that other cells may go on from; None:
    they do not. until: epochs after which a training pauses. places: run folders of a population,
    whose cells get the values of others.
    """

    config: dict[str, Any]
    slots: Slots
    metric: str | None
    copy_epochs: int | None = None
    until: int | None = None
    places: tuple[str, ...] | None = None

    def place(self, trial_id: str, values: Mapping[str, Any]) -> str:
        """The run folder of a trial of Ray Tune."""
        return str(values[RUN]) if self.places is None else self.places[place_of(trial_id)]


def place_of(trial_id: str) -> int:
    """Which of the values that Ray Tune was given at once a trial has had first: its id ends so."""
    return int(trial_id.rpartition("_")[2])


def slot_config(config: Config, slots: Slots) -> Config:
    """The configuration that a cell trains with, on what its slot has."""
    own = {"device": slots.device, "workers": slots.workers, **threads(config, slots)}
    return config.model_copy(update={"distill": config.distill.model_copy(update=own)})


def threads(config: Config, slots: Slots) -> dict[str, int]:
    """`distill.threads` of a cell: without a limit, each would take all cores of the machine."""
    return {"threads": config.distill.threads or (1 if slots.workers else slots.cpus)}


def run_trial(shared: Shared, values: Mapping[str, Any]) -> None:
    """Train one cell and report to Ray Tune, which may end it at any report.

    Killed and started again it goes on from its run folder. Raises what the training raises.
    """
    from ray import tune

    base = Config.model_validate(shared.config)
    use_cache(base.store.cache_dir)
    changes = values[CHANGES]
    config = changed(base, changes, f"{base.name} with {named_changes(changes)}")
    config = saving_at(slot_config(config, shared.slots), shared.copy_epochs or shared.until)
    run = folder_at(shared.place(tune.get_context().get_trial_id(), values))
    while True:
        _wait_until_free(run)
        # Somebody may begin it since.
        with suppress(InUseError):
            return _train(shared, config, run)


def _train(shared: Shared, config: Config, run: RunFolder) -> None:
    if run.has(ERROR):
        # An explained error would repeat itself: Tune's second attempt need not train up to it.
        raise TrainingError(str(run.read_json(ERROR)["error"]))
    if shared.slots.workers:
        free_workers(run)
    _take_over(run)
    reports = _Reports(shared, run, config.distill.epochs)
    try:
        # Ray Tune ends the process once a trial is to end, whichever thread reports.
        if train(config, run, reports.epoch, until=shared.until):
            reports.last()
    except InUseError:
        raise
    except EgapipeError as error:
        run.write_json(ERROR, {"error": str(error)})
        raise


class _Reports:
    """Reports the epochs of one cell; Ray Tune may end it at any of them."""

    def __init__(self, shared: Shared, run: RunFolder, epochs: int) -> None:
        self._shared, self._run, self._epochs = shared, run, epochs

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Report an epoch; the last one waits for `last`, when the run folder is complete."""
        from ray import tune

        report = self._report(epoch + 1, metrics)
        if epoch + 1 == self._epochs:
            return
        copy_epochs = self._shared.copy_epochs
        copied = copy_epochs is not None and (epoch + 1) % copy_epochs == 0
        tune.report(report, checkpoint=self._checkpoint() if copied else None)

    def last(self) -> None:
        """Report the last epoch of a finished run. Nobody is asked whether it goes on."""
        from ray import tune

        *_, metrics = read_metrics(self._run)
        values = {name: value for name, value in metrics.items() if name != "epoch"}
        tune.report({**self._report(self._epochs, values), "done": True})

    def _report(self, done: int, metrics: Mapping[str, float]) -> dict[str, Any]:
        metric = self._shared.metric
        if metric is None:
            return {EPOCHS: done, METRICS: dict(metrics)}
        if metric not in metrics:
            known = ", ".join(name for name in metrics if name != "epoch")
            raise TrainingError(
                f"sweep.metric {metric!r} is no metric of an epoch, those are: {known}"
            )
        return {EPOCHS: done, METRICS: dict(metrics), metric: metrics[metric]}

    def _checkpoint(self) -> Any:
        from ray import tune

        return tune.Checkpoint.from_directory(self._run.checkpoints)


def _take_over(run: RunFolder) -> None:
    """Go on from the checkpoint that Tune hands over, another cell's or an older one of its own.

    The epochs before it stay in the metrics: they are the cell's own.
    """
    from ray import tune

    checkpoint = tune.get_checkpoint()
    if checkpoint is None or run.finished:
        return
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    checkpoint.to_directory(run.checkpoints)
    run.put("checkpoints/")


def _wait_until_free(run: RunFolder) -> None:
    """The processes of a driver that was killed end a little later than it does; another comparison
    may have a training in common, and come to its end."""
    while run.in_use():
        time.sleep(_LOOK_SECONDS)
