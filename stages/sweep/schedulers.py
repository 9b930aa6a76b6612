"""Which trials end early and how many run: Ray Tune's schedulers from the configuration."""

from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
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
from egapipe.stages.sweep.mutable import within
from egapipe.stages.sweep.reports import EPOCHS
from egapipe.stages.sweep.trial import CHANGES


class Limited(TrialScheduler):
    """Lets no more than `concurrent` trials run at once, wherever they come from.

    A searcher only withholds new trials: those that were under way when a sweep was killed, and
    failed ones that are tried again, it does not see. What is too many waits, paused.
    """

    concurrent: int

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """A trial that is new, restored or to be tried again."""
        super().on_trial_add(tune_controller, trial)
        others = _active(tune_controller) - {trial}
        if trial.status == Trial.PENDING and len(others) >= self.concurrent:
            trial.set_status(Trial.PAUSED)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """The next one, if there is room; those that are pending already have theirs."""
        if len(_active(tune_controller)) >= self.concurrent:
            return None
        return super().choose_trial_to_run(tune_controller)


class _Fifo(Limited, FIFOScheduler):
    pass


class _Asha(Limited, ASHAScheduler):
    pass


class _Median(Limited, MedianStoppingRule):
    pass


class _Pbt(Limited, PopulationBasedTraining):
    pass


def make_scheduler(sweep: SweepConfig, epochs: int, concurrent: int) -> Limited:
    """The scheduler of a sweep whose longest trial has so many epochs.

    concurrent: trials at once.
    """
    made = _scheduler(sweep, epochs)
    made.concurrent = concurrent
    return made


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
    return _pbt(sweep, options) if isinstance(options, PbtScheduler) else _Fifo()  # type: ignore[no-untyped-call]


def _active(tune_controller: Any) -> set[Trial]:
    """Trials that have a place, whether or not their process is there yet."""
    having = (Trial.PENDING, Trial.RUNNING)
    return {trial for trial in tune_controller.get_trials() if trial.status in having}


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
    )


def _domain(dimension: Dimension) -> Any:
    if dimension.uniform is not None:
        return tune.uniform(*dimension.uniform)
    if dimension.loguniform is not None:
        return tune.loguniform(*dimension.loguniform)
    return list(dimension.choice or ())
