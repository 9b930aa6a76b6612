"""`run`: a sweep, from a configuration to its best trial."""

import time
from collections.abc import Callable, Sequence

from egapipe.pipeline.config import Config
from egapipe.pipeline.config.sweep import PbtScheduler
from egapipe.pipeline.errors import TrainingError
from egapipe.pipeline.machine.cluster import cluster_nodes, ray_session
from egapipe.pipeline.results.learned import require_still
from egapipe.pipeline.results.runs import RunFolder
from egapipe.pipeline.terminal.progress import OpenProgress, Progress, silent_progress
from egapipe.stages.sweep.folder import SweepFolder, sweep_folder
from egapipe.stages.sweep.mutable import check_mutable
from egapipe.stages.sweep.plan import Trial, plan
from egapipe.stages.sweep.ready import check_ready
from egapipe.stages.sweep.report import (
    SweepReport,
    finish,
    make_report,
    read_report,
    write_report,
)
from egapipe.stages.sweep.slots import Slots, plan_slots
from egapipe.stages.sweep.state import TrialState, best
from egapipe.stages.sweep.track import check_tracking, track_once

__all__ = ["SweepReport", "run"]

Watch = Callable[[Sequence[TrialState]], None]


def run(
    config: Config,
    *,
    restart: bool = False,
    retry_failed: bool = False,
    progress: OpenProgress = silent_progress,
    watch: Watch | None = None,
) -> SweepReport:
    """Run the trials that `config.sweep` describes and find the best.

    The sweep's folder follows from the configuration: an interrupted sweep continues, its finished
    trials are kept; a finished one is returned as it is unless `restart`, unless trials have failed
    and `retry_failed`, or unless there are more samples now, of which it has the first ones.
    progress: shows the epochs of all trials. watch: is told of the state of every trial, often.
    Raises UsageError or StoreError before any trial starts, TrainingError if no trial reached its
    last epoch.
    """
    trials = plan(config)
    if isinstance(config.sweep.scheduler, PbtScheduler):
        check_mutable(config)
    folder = sweep_folder(config)
    if folder.finished and not restart:
        report = read_report(folder)
        for trial in report.ranked()[:1]:
            require_still(RunFolder(trial.run))
        if not (retry_failed and report.count("failed")) and not _grown(config, trials, report):
            if config.sweep.track is not None:
                check_tracking(config)
                track_once(config, folder, report)
            return report
    check_tracking(config)
    check_ready(config, trials)
    with folder.exclusive():
        if restart:
            folder.clear()
        folder.start(config)
        if retry_failed:
            folder.forget_errors()
        return _search(config, trials, folder, retry_failed, progress, watch or _nobody)


def _search(
    config: Config,
    trials: Sequence[Trial],
    folder: SweepFolder,
    retry_failed: bool,
    progress: OpenProgress,
    watch: Watch,
) -> SweepReport:
    started = time.perf_counter()
    total = sum(trial.config.distill.epochs for trial in trials)
    if config.sweep.search == "optuna":
        total = config.sweep.samples * config.distill.epochs
    with ray_session(config.cluster), progress("sweep", total, unit="epochs") as bar:
        # Ray is imported when its session is there: it reads its environment then.
        from egapipe.stages.sweep.tuning import tune_trials

        slots = plan_slots(config, cluster_nodes())
        shown = _Shown(bar, config.sweep.mode)

        def told(states: Sequence[TrialState]) -> None:
            shown.update(states)
            watch(states)

        ran = tune_trials(config, trials, folder, slots, told, retry_failed=retry_failed)
    report = make_report(config, folder, ran.states, ran.concurrent, time.perf_counter() - started)
    return _conclude(config, folder, ran.states, slots, report)


def _grown(config: Config, trials: Sequence[Trial], report: SweepReport) -> bool:
    """Whether the configuration has trials that a finished sweep does not."""
    proposed = config.sweep.search == "optuna"
    return (config.sweep.samples if proposed else len(trials)) > len(report.trials)


def _conclude(
    config: Config,
    folder: SweepFolder,
    states: Sequence[TrialState],
    slots: Slots,
    report: SweepReport,
) -> SweepReport:
    left = sum(not state.ended for state in states)
    if left or not states:
        raise TrainingError(
            f"Ray Tune stopped with {left} of {len(states)} trials unfinished in {folder.path}: "
            "run the same command again to continue"
        )
    write_report(config, folder, report, slots)
    if report.best is None:
        error = next((state.error for state in states if state.error), "none was left to")
        raise TrainingError(
            f"no trial of {folder.path} reached its last epoch, {report.count('failed')} of "
            f"{len(states)} failed: {error}"
        )
    # The results first: a tracker that is down takes nothing from them.
    finish(config, folder, report)
    track_once(config, folder, report)
    return report


class _Shown:
    """The trials on a progress display."""

    def __init__(self, bar: Progress, mode: str) -> None:
        self._bar, self._mode = bar, mode
        self._noted: set[int] = set()

    def update(self, states: Sequence[TrialState]) -> None:
        for state in states:
            if state.status == "failed" and state.number not in self._noted:
                self._noted.add(state.number)
                self._bar.note(f"trial {state.number} failed: {state.error}")
        counts = {
            name: sum(state.status == name for state in states)
            for name in ("running", "finished", "stopped", "failed")
        }
        # What a trial that ended early leaves out is done as well.
        done = sum(state.total if state.ended else state.epochs for state in states)
        first = best(states, self._mode)
        found = {} if first is None else {"best": float(f"{first.value or 0.0:.4g}")}
        self._bar.update(done, **counts, **found)


def _nobody(states: Sequence[TrialState]) -> None:
    del states
