"""Who of a population goes on: all are at a look before anybody passes it."""

from dataclasses import dataclass, field
from typing import Any

from ray.tune.experiment import Trial

from egapipe.pipeline.config import load_config
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


def test_who_waits_for_a_trial_that_has_failed_goes_on() -> None:
    space = "sweep.space={distill.lr: {uniform: [0.1, 1]}}"
    config = load_config("quickstart", [space, "sweep.scheduler={kind: pbt, interval_epochs: 2}"])
    scheduler = make_scheduler(config.sweep, epochs=8, concurrent=1)
    changes = {CHANGES: {"distill.lr": 0.5}}
    first, second = trials = [Trial("x", config=changes, stub=True) for _ in range(2)]
    population = Population()
    for trial in trials:
        population.trials.append(trial)
        scheduler.on_trial_add(population, trial)  # type: ignore[arg-type]
    assert [trial.status for trial in trials] == [Trial.PENDING, Trial.PAUSED]
    first.status = Trial.RUNNING
    result = {EPOCHS: 2, "test/top1": 50.0}
    assert scheduler.on_trial_result(population, first, result) == "PAUSE"  # type: ignore[arg-type]
    first.status = Trial.PAUSED
    assert scheduler.choose_trial_to_run(population) is second
    second.status = Trial.RUNNING
    assert scheduler.choose_trial_to_run(population) is None
    second.status = Trial.ERROR
    assert scheduler.choose_trial_to_run(population) is first
