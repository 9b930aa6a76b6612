"""The graph of the global batch over real processes that talk through gloo."""

import multiprocessing

import pytest
import torch
import torch.multiprocessing as mp

from egapipe.stages.distill.objectives import ega_loss
from tests.stages.distill.objectives import workers
from tests.stages.distill.objectives.workers import DTYPES, SPLITS, NodeLayers

TOLERANCE = {"float32": 1e-5, "float64": 1e-10}


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What each of four workers saw; started once for all the tests."""
    folder = tmp_path_factory.mktemp("workers")
    # One process imports torch (and the part of it that DistributedDataParallel loads on first use)
    # and forks the workers: 4 s where four imports side by side take 20.
    multiprocessing.set_forkserver_preload(["torch._dynamo", workers.__name__])
    mp.start_processes(
        workers.run, args=(str(folder),), nprocs=workers.WORLD, start_method="forkserver"
    )
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(workers.WORLD)]


def alone(type_name):
    """Loss and gradients of all rows in this process, by the definition."""
    dtype = DTYPES[type_name]
    model = NodeLayers(dtype)
    loss = model(workers.batch(dtype), None)
    loss.backward()
    return loss.detach(), workers.gradients(model)


def relative_error(actual, expected):
    return ((actual - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("type_name", DTYPES)
@pytest.mark.parametrize("split", SPLITS)
def test_workers_together_are_one_worker(seen, split, type_name):
    loss, gradients = alone(type_name)
    for rank in range(len(SPLITS[split])):
        result = seen[rank][f"{split} {type_name}"]
        assert relative_error(result["loss"], loss) <= TOLERANCE[type_name]
        assert relative_error(result["gradients"], gradients) <= TOLERANCE[type_name]


@pytest.mark.parametrize("split", SPLITS)
def test_every_worker_sees_the_same_loss(seen, split):
    losses = {seen[rank][f"{split} float64"]["loss"].item() for rank in range(len(SPLITS[split]))}
    assert len(losses) == 1


def test_scope_decides_whose_rows_the_graph_has(seen):
    rows = workers.batch(torch.float64)
    student, teacher = rows[:, :10], rows[:, 10:20]
    whole = ega_loss(student, teacher)
    for rank, part in enumerate(torch.arange(64).split(16)):
        own = ega_loss(student[part], teacher[part])
        scopes = seen[rank]["scopes"]
        torch.testing.assert_close(scopes["global"], whole)
        torch.testing.assert_close(scopes["local"], own)
        torch.testing.assert_close(scopes["local direct"], own)


def test_the_direct_form_over_workers_is_refused(seen):
    for worker in seen:
        error = worker["scopes"]["error"]
        assert "form direct" in error
        assert "scope to local" in error
