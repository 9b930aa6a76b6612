"""One trial, in a process of its own: a training in its run folder, reported epoch by epoch."""

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from egapipe.pipeline.config import Config
from egapipe.pipeline.errors import EgapipeError, TrainingError
from egapipe.pipeline.results.runs import RunFolder, run_identity
from egapipe.stages import distill
from egapipe.stages.sweep.folder import ERROR, SweepFolder
from egapipe.stages.sweep.plan import Changes, changed
from egapipe.stages.sweep.reports import Reports
from egapipe.stages.sweep.slots import Slots

CHANGES, NUMBER = "changes", "number"
# The processes of a driver that was killed end a little later than it does.
_FREE_SECONDS = 60.0
_LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class Setting:
    """What all trials of a sweep share.

    config: the sweep's, as plain values. folder: the sweep's. copy_epochs: epochs between
    checkpoints that other trials may go on from; None: they do not.
    """

    config: dict[str, Any]
    folder: str
    slots: Slots
    copy_epochs: int | None

    def run(self, number: int, changes: Changes) -> RunFolder:
        """The run folder of a trial. Where settings change on the way they cannot name it."""
        return SweepFolder(Path(self.folder)).trial(number, None if self.copy_epochs else changes)


def trial_number(trial_id: str, values: Mapping[str, Any]) -> int:
    """A trial's number from 0.

    A searcher's trials have it among their values. Of planned ones Ray's id ends with it, and that
    remains when population based training gives a trial the values of another.
    """
    return int(values[NUMBER] if NUMBER in values else trial_id.rpartition("_")[2])


def trial_config(config: Config, changes: Changes, slots: Slots) -> Config:
    """The configuration that a trial trains with: its settings, on what its slot has."""
    tree = changed(config, changes)
    device = {"device": slots.device, "workers": slots.workers}
    return tree.model_copy(
        update={"distill": tree.distill.model_copy(update={**device, **threads(tree, slots)})}
    )


def threads(config: Config, slots: Slots) -> dict[str, int]:
    """`distill.threads` of a trial: without a limit, each would take all cores of the machine."""
    return {"threads": config.distill.threads or (1 if slots.workers else slots.cpus)}


def train(setting: Setting, values: Mapping[str, Any]) -> None:
    """Train one trial and report to Ray Tune, which may end it at any report.

    Killed and started again it goes on from its run folder. Raises what the training raises.
    """
    from ray import tune

    context = tune.get_context()
    changes: Changes = values[CHANGES]
    number = trial_number(context.get_trial_id(), values)
    run = setting.run(number, changes)
    base = Config.model_validate(setting.config)
    config = trial_config(base, changes, setting.slots)
    _wait_until_free(run)
    # Population based training changes settings within a folder.
    recorded = run.config() if setting.copy_epochs and _begun(run) else config
    SweepFolder(Path(setting.folder)).remove_others(number, run, recorded)
    _repeat_error(run)
    _take_over(run)
    try:
        config = _saving_copies(config, setting.copy_epochs)
        reports = Reports(run, config, setting.copy_epochs)
        # Ray Tune ends the process once a trial is to end, whichever thread reports.
        distill.run(config, folder=run, report=reports.epoch)
        reports.last()
    except EgapipeError as error:
        run.path.mkdir(exist_ok=True)
        run.write_json(ERROR, {"error": str(error), "identity": run_identity(config)})
        raise


def _begun(run: RunFolder) -> bool:
    return (run.path / "config.yaml").is_file()


def _saving_copies(config: Config, copy_epochs: int | None) -> Config:
    """The configuration with a checkpoint at every epoch from which others may go on."""
    if copy_epochs is None or copy_epochs % config.distill.checkpoint_epochs == 0:
        return config
    saving = config.distill.model_copy(update={"checkpoint_epochs": copy_epochs})
    return config.model_copy(update={"distill": saving})


def _take_over(run: RunFolder) -> None:
    """Go on from the checkpoint that Tune hands over, another trial's or an older one of its own.

    The epochs before it stay in the metrics: they are the trial's own.
    """
    from ray import tune

    checkpoint = tune.get_checkpoint()
    if checkpoint is None or run.finished:
        return
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    checkpoint.to_directory(run.checkpoints)


def _repeat_error(run: RunFolder) -> None:
    """An explained error would repeat itself: Tune's second attempt need not train up to it."""
    if (run.path / ERROR).is_file():
        raise TrainingError(str(run.read_json(ERROR)["error"]))


def _wait_until_free(run: RunFolder) -> None:
    deadline = time.monotonic() + _FREE_SECONDS
    while True:
        try:
            with run.exclusive():
                return
        except TrainingError:
            if time.monotonic() > deadline:
                raise
        time.sleep(_LOOK_SECONDS)
