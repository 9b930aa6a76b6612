"""What a sweep begins with: settings with their seeds, and what an earlier sweep has finished."""

import statistics
from pathlib import Path

import pytest

from egapipe.pipeline.config import Config, load_config
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.results.runs import RunFolder
from egapipe.stages import sweep
from egapipe.stages.sweep.folder import sweep_folder, sweep_identity
from egapipe.stages.sweep.plan import plan
from egapipe.stages.sweep.planned import Begun, begin
from egapipe.stages.sweep.warm import Earlier
from tests.golden_copy import golden

__all__ = ["golden"]

EARLIER = "runs/search/sweep-ef47a094"
# Its rates that came to something, a third one of which it knows nothing, and its seeds.
THREE = "sweep.space={distill.lr: {grid: [0.01, 0.02, 0.04]}}"
SETS = (THREE, "sweep.search=grid", "sweep.seeds=[0, 1]", f"sweep.warm_start={EARLIER}")


def configured(*sets: str) -> Config:
    return load_config(f"{EARLIER}/config.yaml", ["sweep.space={}", *SETS, *sets])


def begun(config: Config) -> Begun:
    earlier = Earlier.of(config)
    trials = plan(config, [] if earlier is None else earlier.first())
    folder = sweep_folder(config)
    folder.start(config)
    return begin(config, trials, folder, earlier, retry_failed=False)


def means() -> dict[float, float]:
    """Rate -> mean over the earlier sweep's seeds."""
    found: dict[float, list[float]] = {}
    for path in Path(EARLIER, "trials").glob("000[0-3]*"):
        run = RunFolder(path)
        found.setdefault(run.config().distill.lr, []).append(run.summary()["top1"])
    return {rate: statistics.fmean(values) for rate, values in found.items()}


@pytest.mark.usefixtures("golden")
def test_trainings_that_would_be_the_same_are_not_made_again() -> None:
    config = configured()
    found = begun(config)
    experiment, folder = found.experiment, sweep_folder(config)
    assert [cell.state for cell in experiment.cells] == ["done"] * 4 + ["planned"] * 2
    assert [(p.number, p.changes) for p in found.pending] == [
        (4, {"distill.lr": 0.04, "distill.seed": 0}),
        (5, {"distill.lr": 0.04, "distill.seed": 1}),
    ]
    for cell in experiment.cells[:4]:
        run = folder.beside(str(cell.run))
        assert run.path.resolve().parent == Path(EARLIER, "trials").resolve()
        rate = experiment.setting(cell.setting).changes["distill.lr"]
        assert (run.config().distill.lr, run.config().distill.seed) == (rate, cell.seed)
        assert cell.value == pytest.approx(run.summary()["top1"])


@pytest.mark.usefixtures("golden", "ray_cluster")
def test_a_sweep_of_which_all_is_known_trains_nothing_and_its_mean_decides() -> None:
    report = sweep.run(configured("sweep.space={distill.lr: {grid: [0.01, 0.02]}}"))
    assert [trial.status for trial in report.trials] == ["finished"] * 4
    assert not list((Path(report.folder) / "trials").iterdir())
    groups = report.settings()
    assert {g.changes["distill.lr"]: g.mean for g in groups} == pytest.approx(means())
    assert groups[0].mean == max(means().values())
    assert report.best == groups[0].trials[0]
    assert sorted(groups[0].values) == [0, 1]


@pytest.mark.usefixtures("golden")
def test_where_nothing_is_the_same_the_best_settings_come_first() -> None:
    found = begun(configured("distill.epochs=4", "distill.milestones=[0.75]"))
    assert [cell.state for cell in found.experiment.cells] == ["planned"] * 6
    best = max(means(), key=means().__getitem__)
    assert found.pending[0].changes["distill.lr"] == best


@pytest.mark.usefixtures("golden")
def test_the_earlier_sweep_counts_by_its_name_wherever_it_lies() -> None:
    here = sweep_identity(configured())
    Path("elsewhere").symlink_to("runs/search")
    assert sweep_identity(configured("sweep.warm_start=elsewhere/sweep-ef47a094/")) == here
    assert sweep_identity(configured("sweep.warm_start=null")) != here


@pytest.mark.usefixtures("golden")
def test_what_is_no_sweep_is_refused() -> None:
    [comparison] = Path("runs/grid").glob("compare-*")
    with pytest.raises(UsageError, match="a comparison: name a sweep's folder"):
        begun(configured(f"sweep.warm_start={comparison}"))


@pytest.mark.usefixtures("golden")
def test_every_setting_has_every_seed_and_a_seed_is_no_setting() -> None:
    experiment = begun(configured("sweep.warm_start=null", "sweep.seeds=[3, 5]")).experiment
    assert len(experiment.settings) == 3
    for setting in experiment.settings:
        assert setting.changes.keys() == {"distill.lr"}
        assert [cell.seed for cell in experiment.cells_of(setting)] == [3, 5]
    with pytest.raises(UsageError, match=r"has distill\.seed, and sweep\.seeds is given"):
        plan(configured("sweep.space={distill.seed: {grid: [1, 2]}}"))
