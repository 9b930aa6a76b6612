"""Who of a population goes on: all are at a look before anybody passes it."""

from dataclasses import dataclass, field
from typing import Any

from ray.tune.experiment import Trial

from egapipe.pipeline.config import load_config
from egapipe.stages.experiment.limited import Limited
from egapipe.stages.experiment.trial import CHANGES, EPOCHS
from egapipe.stages.sweep.schedulers import make_scheduler


@dataclass
class Population:
    """What a scheduler asks of Ray Tune."""

    trials: list[Trial] = field(default_factory=list)
    search_alg: Any = None

    def get_trials(self) -> list[Trial]:
        return self.trials

    def get_live_trials(self) -> list[Trial]:
        return [trial for trial in self.trials if not trial.is_finished()]


def of_two() -> tuple[Limited, Population]:
    """A population of two that take turns, of which the first one runs."""
    space = "sweep.space={distill.lr: {uniform: [0.1, 1]}}"
    config = load_config("quickstart", [space, "sweep.scheduler={kind: pbt, interval_epochs: 2}"])
    scheduler, population = make_scheduler(config.sweep, epochs=8, concurrent=1), Population()
    for _ in range(2):
        trial = Trial("x", config={CHANGES: {"distill.lr": 0.5}}, stub=True)
        population.trials.append(trial)
        scheduler.on_trial_add(population, trial)  # type: ignore[arg-type]
    assert [trial.status for trial in population.trials] == [Trial.PENDING, Trial.PAUSED]
    population.trials[0].status = Trial.RUNNING
    return scheduler, population


def told(scheduler: Limited, population: Population, trial: Trial, epochs: int) -> str:
    """What follows from a report."""
    result = {EPOCHS: epochs, "test/top1": 50.0}
    return scheduler.on_trial_result(population, trial, result)  # type: ignore[arg-type]


def test_one_that_goes_on_after_a_kill_is_looked_at_where_it_has_a_checkpoint() -> None:
    scheduler, population = of_two()
    first, _ = population.trials
    assert [told(scheduler, population, first, n) for n in (5, 6)] == ["CONTINUE", "PAUSE"]


def test_who_waits_for_a_trial_that_has_failed_goes_on() -> None:
    scheduler, population = of_two()
    first, second = population.trials
    assert told(scheduler, population, first, 2) == "PAUSE"
    first.status = Trial.PAUSED
    assert scheduler.choose_trial_to_run(population) is second
    second.status = Trial.RUNNING
    assert scheduler.choose_trial_to_run(population) is None
    second.status = Trial.ERROR
    assert scheduler.choose_trial_to_run(population) is first
