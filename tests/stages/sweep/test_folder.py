"""The folder of a sweep: which sweep is which, and what belongs to a trial."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egapipe.pipeline.config import Config, load_config
from egapipe.pipeline.results.labels import short_name, short_value, value_names
from egapipe.stages.sweep.folder import SweepFolder, sweep_folder, sweep_identity

SPACE = "sweep.space={distill.lr: {uniform: [0.01, 0.1]}}"


def config(*sets: str) -> Config:
    return load_config("quickstart", [SPACE, *sets])


@pytest.mark.parametrize(
    "launch",
    [
        "sweep.max_concurrent=3",
        "sweep.samples=17",
        "sweep.cpus_per_trial=2",
        "sweep.gpus_per_trial=0.5",
        "sweep.max_failures=9",
        "sweep.track={kind: mlflow}",
        "cluster.cpus=8",
        "distill.workers=1",
        "distill.sync_batchnorm=true",
    ],
)
def test_where_trials_run_does_not_make_another_sweep(launch: str) -> None:
    assert sweep_folder(config(launch)) == sweep_folder(config())


def test_workers_make_another_where_each_normalises_over_its_own_rows() -> None:
    alone, two = sweep_folder(config()), "distill.workers=2"
    assert sweep_folder(config(two)) != alone
    assert sweep_folder(config(two, "distill.sync_batchnorm=true")) == alone
    flat = "distill.student.name=torch.nn:Flatten"
    assert sweep_folder(config(two, flat)) == sweep_folder(config(flat))


@pytest.mark.parametrize(
    "other",
    [
        "sweep.space={distill.lr: {uniform: [0.01, 0.2]}}",
        "sweep.search_seed=1",
        "sweep.scheduler=fifo",
        "sweep.metric=train/loss",
        "distill.epochs=61",
        "distill.seed=1",
        # Batch normalisation sees a worker's own rows.
        "distill.workers=2",
    ],
)
def test_what_decides_the_trials_does(other: str) -> None:
    assert sweep_folder(config(other)) != sweep_folder(config())


def test_the_folder_of_an_older_sweep_is_found(tmp_path: Path) -> None:
    """Its name had the number of samples in it."""
    tree = config(f"runs={tmp_path}")
    new = sweep_folder(tree).path
    older = new.with_name(f"sweep-{sweep_identity(tree, samples=True)}")
    assert older != new
    older.mkdir(parents=True)
    assert sweep_folder(tree).path == older
    assert sweep_folder(config(f"runs={tmp_path}", "sweep.samples=17")).path == new


def test_a_trial_is_named_by_its_number_and_settings(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path)
    changes = {
        "distill.objective": {"ega": {}, "kd": {}},
        "distill.lr": 0.123456,
        "distill.x": "a/b",
    }
    named = folder.trial(7, changes).path
    assert named == tmp_path / "trials" / "0007-objective=ega+kd,lr=0.1235,x=a_b"
    assert folder.trial(7, None).path.name == "0007"
    assert len(folder.trial(7, {"distill.x": "y" * 500}).path.name) < 100


def test_words_for_people() -> None:
    assert short_name("distill.objective.ega.weight") == "ega.weight"
    assert short_name("distill.head.lr") == "head.lr"
    values = (0.31249999, 3, "a", None, {}, {"ega": {}, "kd": {"weight": 0.5}})
    texts = ["0.3125", "3", "a", "None", "none", "ega+kd(weight=0.5)"]
    assert [short_value(value) for value in values] == texts


VALUES = st.recursive(
    st.floats(0, 1) | st.integers(0, 3) | st.sampled_from(["a", "0.1", "ega", "ega=1", "None"]),
    lambda inner: st.dictionaries(st.sampled_from(["ega", "kd", "weight"]), inner, max_size=2),
    max_leaves=3,
)


@given(st.lists(VALUES | st.none(), max_size=5))
def test_unlike_values_have_unlike_names(values: list[Any]) -> None:
    names = value_names(values)
    for (one, first), (other, second) in itertools.combinations(zip(values, names, strict=True), 2):
        same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
        assert (first == second) == same


def test_variants_of_one_objective_are_two() -> None:
    assert value_names([{"ega": 0.1}, {"ega": 1.0}]) == ["ega=0.1", "ega=1"]
    assert value_names([0.12341, 0.12342, 0.5]) == ["0.12341", "0.12342", "0.5"]
