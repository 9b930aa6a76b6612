"""How many trials run at once, from what they take and what there is."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egapipe.pipeline.config import load_config
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.machine.cluster import Node
from egapipe.stages.experiment.slots import Slots, plan_slots


def slots(*machines: Node, sets: tuple[str, ...] = ()) -> Slots:
    config = load_config("quickstart", ["distill.threads=null", *sets])
    return plan_slots(config, machines, config.sweep.max_concurrent)


@pytest.mark.parametrize(
    ("machines", "sets", "device", "concurrent"),
    [
        ([Node(8, 0)], (), "cpu", 8),
        ([Node(8, 0)], ("distill.threads=3",), "cpu", 2),
        ([Node(8, 0)], ("sweep.cpus_per_trial=2",), "cpu", 4),
        ([Node(8, 0)], ("sweep.max_concurrent=3",), "cpu", 3),
        ([Node(8, 0)], ("sweep.max_concurrent=30",), "cpu", 8),
        ([Node(16, 2)], (), "cuda", 2),
        ([Node(16, 2)], ("sweep.gpus_per_trial=0.25",), "cuda", 8),
        ([Node(4, 2)], ("sweep.gpus_per_trial=0.25",), "cuda", 4),
        ([Node(16, 2)], ("sweep.gpus_per_trial=0.3333333",), "cuda", 6),
        ([Node(16, 2)], ("distill.device=cpu",), "cpu", 16),
        # A fraction of a GPU is of one: two halves on two machines are no whole.
        ([Node(8, 1), Node(8, 1)], ("sweep.gpus_per_trial=0.7",), "cuda", 2),
        # A trial and its Ray Train workers: 1 + 3 of 8 and of 9 CPUs.
        ([Node(8, 0)], ("distill.workers=3",), "cpu", 2),
        ([Node(5, 0), Node(4, 0)], ("distill.workers=3",), "cpu", 2),
        ([Node(16, 4)], ("distill.workers=2",), "cuda", 2),
        ([Node(8, 0)], ("distill.workers=1",), "cpu", 8),
    ],
)
def test_trials_at_once(
    machines: list[Node], sets: tuple[str, ...], device: str, concurrent: int
) -> None:
    planned = slots(*machines, sets=sets)
    assert (planned.device, planned.concurrent) == (device, concurrent)


def test_the_workers_of_a_trial_have_the_gpus() -> None:
    planned = slots(Node(16, 4), sets=("distill.workers=2",))
    assert (planned.cpus, planned.gpus, planned.workers) == (1, 0.0, 2)


@pytest.mark.parametrize(
    ("machine", "sets", "needed"),
    [
        (Node(2, 0), ("distill.workers=2",), "3 CPU"),
        (Node(2, 0), ("sweep.cpus_per_trial=4",), "4 CPU"),
        (Node(8, 0), ("distill.device=cuda",), "1 CPU and 1 GPU"),
        (Node(8, 1), ("distill.device=cuda", "distill.workers=2"), "3 CPU and 2 GPU"),
    ],
)
def test_no_room_for_one_is_refused(machine: Node, sets: tuple[str, ...], needed: str) -> None:
    with pytest.raises(UsageError, match=f"a trial needs {needed}, but Ray's machines have"):
        slots(machine, sets=sets)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 64), st.integers(0, 8)), min_size=1, max_size=4),
    st.integers(0, 6),
    st.sampled_from([0.25, 0.5, 1.0, 2.0]),
)
def test_never_more_than_there_is(sizes: list[tuple[int, int]], workers: int, gpus: float) -> None:
    machines = [Node(*size) for size in sizes]
    total = Node(sum(m.cpus for m in machines), sum(m.gpus for m in machines))
    try:
        planned = slots(
            *machines, sets=(f"distill.workers={workers}", f"sweep.gpus_per_trial={gpus}")
        )
    except UsageError:
        return
    taken = planned.gpus or (planned.workers if planned.device == "cuda" else 0)
    assert planned.concurrent >= 1
    assert planned.concurrent * (planned.cpus + planned.workers) <= total.cpus
    assert planned.concurrent * taken <= total.gpus
