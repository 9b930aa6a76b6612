"""Ray Tune runs the trials: started, or continued where an earlier driver was killed."""

import logging
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ray import tune
from ray.exceptions import RayError
from ray.tune.error import TuneError

from egapipe.pipeline.config import Config
from egapipe.pipeline.config.sweep import PbtScheduler
from egapipe.pipeline.errors import TrainingError, UsageError, one_line
from egapipe.stages.sweep.folder import SweepFolder
from egapipe.stages.sweep.groups import remove_orphaned_groups, remove_remaining_groups
from egapipe.stages.sweep.growing import PlannedTrials, ProposedTrials, listed
from egapipe.stages.sweep.plan import Trial
from egapipe.stages.sweep.schedulers import Limited, make_scheduler
from egapipe.stages.sweep.slots import Slots
from egapipe.stages.sweep.state import TrialState, states
from egapipe.stages.sweep.trial import Setting, train

Watch = Callable[[Sequence[TrialState]], None]


class Ran(NamedTuple):
    """How a sweep went."""

    states: list[TrialState]
    """The last state of every trial."""
    concurrent: int
    """Most trials that were seen running at once."""


NAME = "tune"
_STATE = "experiment_state-*.json"
# Of other trials' checkpoints those that somebody may be about to copy.
_KEPT_COPIES = 4
_CLEAN_SECONDS = 1.0
_ENVIRONMENT = {
    # The old one says nothing where it is told to be quiet.
    "RAY_AIR_NEW_OUTPUT": "0",
    # Metrics and event files are in the run folders already.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # An interrupt is answered by the command: it says how to continue.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Seconds between snapshots: what was proposed since then is lost with a killed driver.
    "TUNE_GLOBAL_CHECKPOINT_S": "2",
}


def make_setting(config: Config, folder: SweepFolder, slots: Slots) -> Setting:
    """What all trials share."""
    scheduler = config.sweep.scheduler
    copy_epochs = scheduler.interval_epochs if isinstance(scheduler, PbtScheduler) else None
    return Setting(config.model_dump(mode="json"), str(folder.path), slots, copy_epochs)


def tune_trials(
    config: Config,
    trials: Sequence[Trial],
    folder: SweepFolder,
    slots: Slots,
    watch: Watch,
    *,
    retry_failed: bool = False,
) -> Ran:
    """Run the trials that have not ended yet.

    trials: the planned ones, or examples of those that a searcher will propose. watch: told of all
    states again and again. Trials that failed before are run again only with `retry_failed`.
    Raises TrainingError if Ray is lost.
    """
    setting = make_setting(config, folder, slots)
    with _quiet(), _watched(setting, watch, config.sweep.max_failures) as watched:
        path = folder.ray / NAME
        require_own(folder.ray)
        if tune.Tuner.can_restore(str(path)) and any(path.glob(_STATE)):
            tuner = tune.Tuner.restore(
                str(path), trainable=_trainable(setting), resume_errored=retry_failed
            )
            # Restored with what it was begun with: its searcher too, which would end where it did,
            # and its scheduler, which would let as many run.
            internal: Any = tuner._local_tuner
            internal._tune_config.search_alg = _search(config, trials, setting)
            internal._tune_config.scheduler = _scheduler(config, trials, setting)
            internal._tune_config.max_concurrent_trials = None
        else:
            tuner = _new(config, trials, folder, setting)
        try:
            tuner.fit()
        except (RayError, TuneError) as error:
            raise TrainingError(
                f"Ray Tune gave up on {folder.path} ({one_line(error)}): run the same command again"
            ) from error
        if setting.slots.workers:
            remove_remaining_groups()
        return Ran(watched.last, watched.most)


def require_own(folder: Path) -> None:
    """Ray Tune unpickles its state, which runs whatever somebody else wrote there.

    Raises UsageError unless everything in the folder is this user's, and nobody else's to write.
    """
    if not folder.exists() or not hasattr(os, "geteuid"):
        return
    for path in (folder, *folder.rglob("*")):
        status = path.lstat()
        shared = status.st_mode & stat.S_IWOTH and not stat.S_ISLNK(status.st_mode)
        if status.st_uid != os.geteuid() or shared:
            whose = "everybody may write it" if shared else "it belongs to another user"
            raise UsageError(
                f"{path} is state of Ray Tune, whose loading runs code, and {whose}: remove "
                f"{folder}, or run the sweep with --restart"
            )


def _new(
    config: Config, trials: Sequence[Trial], folder: SweepFolder, setting: Setting
) -> tune.Tuner:
    sweep = config.sweep
    proposed = sweep.search == "optuna"
    space = listed([trial.changes for trial in trials])
    return tune.Tuner(
        _trainable(setting),
        param_space=None if proposed else space,
        tune_config=tune.TuneConfig(
            metric=sweep.metric,
            mode=sweep.mode,
            search_alg=_search(config, trials, setting),
            scheduler=_scheduler(config, trials, setting),
            num_samples=sweep.samples if proposed else 1,
            # A new process imports torch for seconds. One that waits for Ray Train cannot go on.
            reuse_actors=not setting.slots.workers,
        ),
        run_config=tune.RunConfig(
            name=NAME,
            storage_path=str(folder.ray),
            callbacks=[_Told()],
            failure_config=tune.FailureConfig(max_failures=sweep.max_failures),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=_KEPT_COPIES),
            verbose=0,
        ),
    )


def _search(config: Config, trials: Sequence[Trial], setting: Setting) -> Any:
    """Where the trials come from."""
    concurrent = setting.slots.concurrent
    if config.sweep.search != "optuna":
        # A population is there as a whole: what has no slot takes turns.
        whole = isinstance(config.sweep.scheduler, PbtScheduler)
        return PlannedTrials([trial.changes for trial in trials], 0 if whole else concurrent)
    from egapipe.stages.sweep.searcher import optuna_search

    return ProposedTrials(optuna_search(config), config.sweep.samples, concurrent)


def _scheduler(config: Config, trials: Sequence[Trial], setting: Setting) -> Limited:
    """Which trials end early, and how many run at once."""
    longest = max(trial.config.distill.epochs for trial in trials)
    return make_scheduler(config.sweep, longest, setting.slots.concurrent)


def _trainable(setting: Setting) -> Any:
    def trial(values: Mapping[str, Any]) -> None:
        train(setting, values)

    bundle = {"CPU": setting.slots.cpus, "GPU": setting.slots.gpus}
    return tune.with_resources(trial, tune.PlacementGroupFactory([bundle]))


class _Watched:
    """The sweep that this process drives at the moment."""

    def __init__(self, setting: Setting, watch: Watch, max_failures: int) -> None:
        self._setting, self._watch, self._max_failures = setting, watch, max_failures
        self._cleaned = time.monotonic()
        self.last: list[TrialState] = []
        self.most = 0

    def settle(self, trials: Sequence[Any]) -> None:
        """What a restored trial was made with may have changed since."""
        for trial in trials:
            trial.max_failures = self._max_failures

    def tell(self, trials: Sequence[Any]) -> None:
        self.last = states(trials, self._setting)
        self.most = max(self.most, sum(state.status == "running" for state in self.last))
        self._watch(self.last)
        if self._setting.slots.workers and time.monotonic() > self._cleaned + _CLEAN_SECONDS:
            remove_orphaned_groups()
            self._cleaned = time.monotonic()


# Tune stores its callbacks with the experiment and makes them anew when it goes on; a display
# cannot be stored.
_watching: list[_Watched] = []


@contextmanager
def _watched(setting: Setting, watch: Watch, max_failures: int) -> Iterator[_Watched]:
    _watching.append(_Watched(setting, watch, max_failures))
    try:
        yield _watching[-1]
    finally:
        _watching.pop()


class _Told(tune.Callback):
    """Is told by Ray Tune where its trials are."""

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        for watched in _watching[-1:]:
            watched.settle(trials)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        for watched in _watching[-1:]:
            watched.tell(trials)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        for watched in _watching[-1:]:
            watched.tell(trials)


@contextmanager
def _quiet() -> Iterator[None]:
    """For the length of a block, what Tune reads from the environment; its log without tracebacks:
    why a trial failed is told in one line.
    """
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    os.environ.update(_ENVIRONMENT)
    log = logging.getLogger("ray.tune")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
