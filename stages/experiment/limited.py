"""How many trials of Ray Tune run at once."""

from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler


class Limited(TrialScheduler):
    """Lets no more than `concurrent` trials run at once, wherever they come from.

    A searcher only withholds new trials: those that were under way when a sweep was killed, and
    failed ones that are tried again, it does not see. What is too many waits, paused.
    """

    concurrent: int

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """A trial that is new, restored or to be tried again."""
        super().on_trial_add(tune_controller, trial)
        others = active(tune_controller) - {trial}
        if trial.status == Trial.PENDING and len(others) >= self.concurrent:
            trial.set_status(Trial.PAUSED)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """The next one, if there is room; those that are pending already have theirs."""
        if len(active(tune_controller)) >= self.concurrent:
            return None
        return super().choose_trial_to_run(tune_controller)


class ToTheEnd(Limited, FIFOScheduler):
    """Ends nothing early."""

    def __init__(self, concurrent: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.concurrent = concurrent


def active(tune_controller: Any) -> set[Trial]:
    """Trials that have a place, whether or not their process is there yet."""
    having = (Trial.PENDING, Trial.RUNNING)
    return {trial for trial in tune_controller.get_trials() if trial.status in having}
