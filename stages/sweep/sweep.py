"""`run`: a sweep, from a configuration to its best trial."""

from collections.abc import Callable, Sequence

from egapipe.pipeline.config import Config
from egapipe.pipeline.config.sweep import PbtScheduler
from egapipe.pipeline.errors import TrainingError
from egapipe.pipeline.machine.cluster import cluster_nodes, ray_session
from egapipe.pipeline.results.experiment import Experiment
from egapipe.pipeline.results.learned import require_still
from egapipe.pipeline.results.runs import RunFolder, open_run
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.pipeline.terminal.progress import OpenProgress, silent_progress
from egapipe.stages.experiment.ledger import Ledger, Listener
from egapipe.stages.experiment.shown import Shown
from egapipe.stages.experiment.slots import Slots, plan_slots
from egapipe.stages.experiment.trial import ERROR
from egapipe.stages.experiment.waiting import Source, Waiting
from egapipe.stages.sweep.folder import SweepFolder, sweep_folder
from egapipe.stages.sweep.mutable import check_mutable
from egapipe.stages.sweep.plan import Trial, plan
from egapipe.stages.sweep.planned import Begun, begin
from egapipe.stages.sweep.ready import check_ready
from egapipe.stages.sweep.report import (
    SweepReport,
    finish,
    make_report,
    read_report,
    write_report,
)
from egapipe.stages.sweep.warm import Earlier
from egapipe.stages.track.tracker import tracked_experiment

__all__ = ["SweepReport", "run"]

Watch = Callable[[Experiment], None]


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
    progress: shows the epochs of all trials. watch: is told of the experiment, often. Raises
    UsageError or StoreError before any trial starts, TrainingError if no trial reached its last
    epoch or another process runs the sweep.
    """
    earlier = Earlier.of(config)
    trials = plan(config, [] if earlier is None else earlier.first())
    if isinstance(config.sweep.scheduler, PbtScheduler):
        check_mutable(config)
    folder = sweep_folder(config)
    if folder.finished and not restart:
        report = read_report(folder)
        for trial in report.ranked()[:1]:
            require_still(open_run(trial.run))
        if not (retry_failed and report.count("failed")) and not _grown(config, trials, report):
            return report
    check_ready(config, trials)
    with folder.exclusive() as folder:
        if restart:
            folder.clear()
        folder.start(config)
        planned = [] if config.sweep.search == "optuna" else trials
        begun = begin(config, planned, folder, earlier, retry_failed=retry_failed)
        return _Search(config, trials, folder, earlier, begun).run(progress, watch or _nobody)


def _grown(config: Config, trials: Sequence[Trial], report: SweepReport) -> bool:
    """Whether the configuration has trials that a finished sweep does not."""
    if config.sweep.search != "optuna":
        return len(trials) > len(report.trials)
    return config.sweep.samples * len(config.sweep.seeds or (0,)) > len(report.trials)


class _Search:
    """A sweep that runs."""

    def __init__(
        self,
        config: Config,
        trials: Sequence[Trial],
        folder: SweepFolder,
        earlier: Earlier | None,
        begun: Begun,
    ) -> None:
        """trials: the planned ones, or examples of those that a searcher will propose."""
        self._config, self._trials, self._folder = config, trials, folder
        self._earlier, self._begun = earlier, begun

    def run(self, progress: OpenProgress, watch: Watch) -> SweepReport:
        config, experiment = self._config, self._begun.experiment
        for planned in self._begun.pending:
            planned.run.discard(ERROR)
        total = sum(cell.epochs for cell in experiment.cells)
        total += (experiment.planned - len(experiment.cells)) * config.distill.epochs
        options = config.track or config.sweep.track
        with tracked_experiment(options, config, self._folder, experiment) as trackers:
            with ray_session(config.cluster), progress("sweep", total, unit="epochs") as bar:
                slots = plan_slots(config, cluster_nodes(), config.sweep.max_concurrent)
                listeners: list[Listener] = [Shown(bar, experiment), *trackers]
                ledger = Ledger(self._folder, experiment, self._measured, listeners)
                with ledger.alive():
                    self._tune(ledger, slots, watch)
            return self._conclude(ledger.experiment, slots)

    def _measured(self, run: RunFolder) -> float | None:
        lines = read_metrics(run)
        value = lines[-1].get(self._config.sweep.metric) if lines else None
        return None if value is None else float(value)

    def _tune(self, ledger: Ledger, slots: Slots, watch: Watch) -> None:
        # Ray is imported when its session is there: it reads its environment then.
        from egapipe.stages.experiment.on_tune import run_on_tune
        from egapipe.stages.experiment.trial import Shared
        from egapipe.stages.sweep.schedulers import make_scheduler, remember

        config, sweep = self._config, self._config.sweep
        source: Source = Waiting(self._begun.pending)
        most = len(self._begun.pending)
        if sweep.search == "optuna":
            from egapipe.stages.sweep.searcher import Proposals

            known, first = ((), []) if self._earlier is None else self._earlier.for_searcher()
            source = Proposals(config, self._folder, ledger, self._begun.pending, known, first)
            most += max(0, ledger.experiment.planned - len(ledger.experiment.cells))
        if not most:
            return
        longest = max(trial.config.distill.epochs for trial in self._trials)
        scheduler = make_scheduler(sweep, longest, slots.concurrent)
        remember(scheduler, self._folder, ledger.experiment)
        copies = None
        if isinstance(sweep.scheduler, PbtScheduler):
            copies = sweep.scheduler.interval_epochs
        shared = Shared(config.model_dump(mode="json"), slots, sweep.metric, copies)
        run_on_tune(
            shared,
            source,
            ledger,
            scheduler,
            most=most,
            max_failures=sweep.max_failures,
            whole=copies is not None,
            watch=lambda: watch(ledger.experiment),
        )

    def _conclude(self, experiment: Experiment, slots: Slots) -> SweepReport:
        config, folder = self._config, self._folder
        left = experiment.counts["planned"] + experiment.counts["running"]
        if left or not experiment.cells:
            raise TrainingError(
                f"Ray Tune stopped with {left} of {experiment.planned} trials unfinished in "
                f"{folder.where}: run the same command again to continue"
            )
        report = make_report(config, folder, experiment)
        write_report(config, folder, report, slots)
        if report.best is None:
            error = next((c.error for c in experiment.cells if c.error), "none was left to")
            raise TrainingError(
                f"no trial of {folder.where} reached its last epoch, {report.count('failed')} of "
                f"{len(report.trials)} failed: {error}"
            )
        finish(config, folder, report)
        return report


def _nobody(experiment: Experiment) -> None:
    del experiment
