"""The loss of the global batch over real processes that talk through gloo."""

import multiprocessing
from functools import cache

import pytest
import torch
import torch.multiprocessing as mp

from tests.stages.distill.objectives import workers
from tests.stages.distill.objectives.workers import DTYPES, GRAPHS, OBJECTIVES, SPLIT, SPLITS

TOLERANCE = {"float32": 1e-5, "float64": 1e-10}


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What each of four workers saw; started once for all the tests."""
    folder = tmp_path_factory.mktemp("workers")
    # One process imports torch (and the part of it that DistributedDataParallel loads on first use)
    # and forks the workers: 4 s where four imports side by side take 20.
    multiprocessing.set_forkserver_preload(["torch._dynamo", workers.__name__])
    mp.start_processes(  # type: ignore[attr-defined]
        workers.run, args=(str(folder),), nprocs=workers.WORLD, start_method="forkserver"
    )
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(workers.WORLD)]


@cache
def alone(name, type_name):
    """The same steps on all rows in this process."""
    return workers.steps(name, DTYPES[type_name], SPLITS["1 x 64"], 0, None)


def relative_error(actual, expected):
    return ((actual - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize(("split", "type_name"), SPLIT)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_workers_together_are_one_worker(seen, name, split, type_name):
    expected = alone(name, type_name)
    assert expected["gradients"].norm() > 0
    for rank in range(len(SPLITS[split])):
        result = seen[rank][f"{name} {split} {type_name}"]
        for what in ("loss", "gradients"):
            assert relative_error(result[what], expected[what]) <= TOLERANCE[type_name]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_worker_sees_the_same_loss(seen, name, split):
    losses = [seen[r][f"{name} {split} float64"]["loss"] for r in range(len(SPLITS[split]))]
    assert all(torch.equal(loss, losses[0]) for loss in losses)


@pytest.mark.parametrize(("split", "type_name"), SPLIT)
def test_banks_stay_equal_without_being_sent(seen, split, type_name):
    banks = [
        seen[rank][f"crd {split} {type_name}"]["buffers"] for rank in range(len(SPLITS[split]))
    ]
    expected = alone("crd", type_name)["buffers"]
    assert len(expected) == 2
    for name, bank in expected.items():
        assert all(torch.equal(own[name], banks[0][name]) for own in banks)
        torch.testing.assert_close(banks[0][name], bank)


@pytest.mark.parametrize("name", GRAPHS)
def test_scope_decides_whose_rows_the_graph_has(seen, name):
    whole = alone(name, "float64")["loss"][0]
    for rank in range(workers.WORLD):
        own = workers.local(name, rank, None)
        torch.testing.assert_close(seen[rank][f"{name} local"], own)
        assert relative_error(own, whole) > 1e-6


def test_the_direct_form_over_workers_is_refused(seen):
    for worker in seen:
        error = worker["refusal"]
        assert "form direct" in error
        assert "scope to local" in error
