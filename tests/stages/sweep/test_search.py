"""Searches whose trials follow from other trials."""

import importlib.util
import json

import pytest

from egapipe.pipeline.results.runs import RunFolder
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.stages import sweep
from egapipe.stages.distill.training.checkpoint import Checkpoints
from tests.stages.sweep.conftest import MakeConfig

pytestmark = [
    pytest.mark.slow,  # each trial waits for torch in its process
    pytest.mark.timeout(900),
    pytest.mark.usefixtures("ray_cluster"),
]
TEMPERATURE = "distill.objective.kd.temperature"


@pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="optuna is not installed")
def test_optuna_asks_for_a_setting_where_the_trial_has_it(small: MakeConfig) -> None:
    space = [
        "distill.objective: {choice: [{}, {kd: 1.0}]}",
        f"{TEMPERATURE}: {{uniform: [1, 8], when: kd}}",
        "distill.lr: {loguniform: [0.001, 0.1]}",
    ]
    config = small(
        f"sweep.space={{{', '.join(space)}}}",
        "sweep.search=optuna",
        "sweep.samples=7",
        "sweep.scheduler=median",
        "distill.epochs=2",
    )
    report = sweep.run(config)
    assert [trial.number for trial in report.trials] == list(range(7))
    assert report.best is not None
    for trial in report.trials:
        assert 0.001 <= trial.changes["distill.lr"] <= 0.1
        objective = trial.changes["distill.objective"]
        assert (TEMPERATURE in trial.changes) == ("kd" in objective)
        assert RunFolder(trial.run).config().distill.lr == trial.changes["distill.lr"]
    assert len({json.dumps(trial.changes) for trial in report.trials}) == 7


def test_a_population_goes_on_from_copies_of_its_best(small: MakeConfig) -> None:
    """Rates of which one learns: at the look after two epochs the other one takes its place."""
    config = small(
        "sweep.space={distill.lr: {choice: [1.0e-7, 0.05]}}",
        "sweep.samples=8",
        # They take turns, so that both are at the look whichever process starts first.
        "sweep.max_concurrent=1",
        "sweep.scheduler={kind: pbt, interval_epochs: 2, quantile: 0.5, resample: 0.0}",
        "distill.epochs=4",
    )
    report = sweep.run(config)
    assert len(report.trials) == 2
    assert report.concurrent == 1
    assert [trial.status for trial in report.trials] == ["finished"] * 2
    for trial in report.trials:
        run = RunFolder(trial.run)
        assert run.path.name == f"{trial.number:04d}"
        assert run.config().distill.lr == trial.changes["distill.lr"]
        assert read_metrics(run)[-1]["epoch"] == 3
        assert Checkpoints(run.checkpoints).position().epoch == 4
    # The one that did not learn could not have got there by itself: without it, it stays at 9 %.
    assert min(trial.value or 0.0 for trial in report.trials) > 25
