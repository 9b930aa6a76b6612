"""Which trials end early: Ray Tune's schedulers from the configuration."""

from typing import Any

from ray import tune
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


def make_scheduler(sweep: SweepConfig, epochs: int) -> TrialScheduler:
    """The scheduler of a sweep whose longest trial has so many epochs."""
    options = sweep.scheduler
    if isinstance(options, AshaScheduler):
        return ASHAScheduler(
            time_attr=EPOCHS,
            max_t=epochs,
            grace_period=min(options.grace_epochs, epochs),
            reduction_factor=options.reduction,
        )
    if isinstance(options, MedianScheduler):
        return MedianStoppingRule(
            time_attr=EPOCHS,
            grace_period=options.grace_epochs,
            min_samples_required=options.min_trials,
        )
    return _pbt(sweep, options) if isinstance(options, PbtScheduler) else FIFOScheduler()


def _pbt(sweep: SweepConfig, options: PbtScheduler) -> TrialScheduler:
    space = sweep.space

    def explored(values: dict[str, Any]) -> dict[str, Any]:
        return {**values, CHANGES: within(space, values[CHANGES])}

    return PopulationBasedTraining(
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
