"""Which trials end early and how many run: Ray Tune's schedulers from the configuration."""

from dataclasses import dataclass
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import (
    ASHAScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    TrialScheduler,
)

from egapipe.pipeline.config.sweep import (
    AshaScheduler,
    Dimension,
    MedianScheduler,
    PbtScheduler,
    SweepConfig,
)
from egapipe.pipeline.results.experiment import Experiment
from egapipe.pipeline.results.runs import RunFolder
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.stages.experiment.limited import Limited, ToTheEnd, active
from egapipe.stages.experiment.trial import CHANGES, EPOCHS
from egapipe.stages.sweep.mutable import within


class _Asha(Limited, ASHAScheduler):
    pass


class _Median(Limited, MedianStoppingRule):
    pass


class _Pbt(Limited, PopulationBasedTraining):
    """All are at a look before anybody goes on: the one that was there first has been copied by
    nobody, and has copied nobody, where it does not wait."""

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Look where there is a checkpoint to copy, also at those that went on after a kill."""
        if result[EPOCHS] % self._perturbation_interval:
            return TrialScheduler.CONTINUE
        return super().on_trial_result(tune_controller, trial, result)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """The next one. Those that wait for a trial which has failed go on to the next look."""
        chosen = super().choose_trial_to_run(tune_controller)
        if chosen is None and not active(tune_controller):
            self._next_perturbation_sync += self._perturbation_interval
            chosen = super().choose_trial_to_run(tune_controller)
        return chosen


def make_scheduler(sweep: SweepConfig, epochs: int, concurrent: int) -> Limited:
    """The scheduler of a sweep whose longest trial has so many epochs.

    concurrent: trials at once.
    """
    made = _scheduler(sweep, epochs)
    made.concurrent = concurrent
    made.set_search_properties(sweep.metric, sweep.mode)
    return made


def remember(scheduler: Limited, folder: RunFolder, experiment: Experiment) -> None:
    """Tell a new scheduler of the cells that are over, epoch by epoch.

    What it would have decided of them is not asked: that has been decided. A population is told
    nothing: it is who lives.
    """
    if isinstance(scheduler, PopulationBasedTraining):
        return
    for cell in experiment.cells:
        if not cell.over or cell.run is None:
            continue
        past = _Past(str(cell.number))
        scheduler.on_trial_add(_Nobody, past)  # type: ignore[arg-type]
        lines = read_metrics(folder.beside(cell.run))
        results = [{**line, EPOCHS: line["epoch"] + 1} for line in lines]
        results = [result for result in results if experiment.metric in result]
        for result in results:
            scheduler.on_trial_result(_Nobody, past, result)  # type: ignore[arg-type]
        if results:
            scheduler.on_trial_complete(_Nobody, past, results[-1])  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Past:
    """What a scheduler asks of a trial that is over."""

    trial_id: str
    status: str = Trial.TERMINATED


class _Nobody:
    """What a scheduler asks of a controller that has no trials."""

    @staticmethod
    def get_trials() -> list[Trial]:
        """None of them."""
        return []

    get_live_trials = get_trials


def _scheduler(sweep: SweepConfig, epochs: int) -> Limited:
    options = sweep.scheduler
    if isinstance(options, AshaScheduler):
        return _Asha(
            time_attr=EPOCHS,
            max_t=epochs,
            grace_period=min(options.grace_epochs, epochs),
            reduction_factor=options.reduction,
        )
    if isinstance(options, MedianScheduler):
        return _Median(
            time_attr=EPOCHS,
            grace_period=options.grace_epochs,
            min_samples_required=options.min_trials,
        )
    return _pbt(sweep, options) if isinstance(options, PbtScheduler) else ToTheEnd(1)


def _pbt(sweep: SweepConfig, options: PbtScheduler) -> Limited:
    space = sweep.space

    def explored(values: dict[str, Any]) -> dict[str, Any]:
        return {**values, CHANGES: within(space, values[CHANGES])}

    return _Pbt(
        time_attr=EPOCHS,
        perturbation_interval=options.interval_epochs,
        hyperparam_mutations={CHANGES: {path: _domain(d) for path, d in space.items()}},
        quantile_fraction=options.quantile,
        resample_probability=options.resample,
        custom_explore_fn=explored,
        log_config=False,
        synch=True,
    )


def _domain(dimension: Dimension) -> Any:
    if dimension.uniform is not None:
        return tune.uniform(*dimension.uniform)
    if dimension.loguniform is not None:
        return tune.loguniform(*dimension.loguniform)
    return list(dimension.choice or ())
