"""How many workers a cluster gets, and when it has no room for them."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egapipe.pipeline.config.extract import ExtractConfig
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.machine.cluster import Node
from egapipe.stages.extract.workers.pool.fleet import Fleet, check_fits, plan_fleet, spread

LAPTOP = [Node(8, 0)]
SERVER = [Node(64, 8)]
CLUSTER = [Node(4, 0), Node(32, 4), Node(32, 4)]


def fleet(nodes: list[Node], promised: dict[str, float] | None = None, **settings: Any) -> Fleet:
    return plan_fleet(ExtractConfig(**settings), nodes, promised)


def taken(made: Fleet, nodes: list[Node]) -> list[tuple[int, int]]:
    """Workers on each machine, and the CPUs that one of them takes."""
    return [(made.places(node), made.cpus_on(node)) for node in nodes]


def test_a_cpu_gets_one_worker_with_all_cores() -> None:
    made = fleet(LAPTOP)
    assert (made.device, made.size, made.minimum, made.most) == ("cpu", 1, 1, None)
    assert taken(made, LAPTOP) == [(1, 8)]
    assert made.resources == "8 CPU"


def test_several_workers_share_the_cores() -> None:
    assert taken(fleet(LAPTOP, max_workers=4), LAPTOP) == [(4, 2)]
    assert fleet(LAPTOP, max_workers=20).usual_cpus == 1
    assert taken(fleet(LAPTOP, min_workers=3), LAPTOP) == [(3, 2)]


def test_every_gpu_gets_a_worker_that_waits_for_one_cpu_only() -> None:
    made = fleet(SERVER)
    assert (made.device, made.size, made.gpus, made.resources) == ("cuda", 8, 1, "1 CPU and 1 GPU")
    assert taken(made, SERVER) == [(8, 1)]
    assert fleet(CLUSTER).size == 8
    assert taken(fleet(CLUSTER), CLUSTER) == [(0, 1), (4, 1), (4, 1)]


def test_gpus_are_shared() -> None:
    assert fleet(SERVER, gpus_per_worker=0.5).size == 16
    assert fleet(SERVER, gpus_per_worker=0.1).size == 80


def test_every_machine_of_a_cluster_without_gpus_gets_a_worker_with_all_its_cores() -> None:
    different = [Node(4, 0), Node(16, 0), Node(0, 0), Node(16, 0)]
    assert taken(fleet(different), different) == [(1, 4), (1, 16), (0, 1), (1, 16)]
    assert taken(fleet(different, max_workers=6), different) == [(2, 2), (2, 8), (0, 1), (2, 8)]
    assert fleet(different, min_workers=5).size == 5
    assert fleet(different).usual_cpus == 4


def test_machines_that_come_later_get_workers_as_those_of_the_start() -> None:
    assert fleet(LAPTOP).places(Node(32, 0)) == 1
    assert fleet(LAPTOP).cpus_on(Node(32, 0)) == 32
    assert fleet(SERVER).places(Node(8, 2)) == 2


def test_a_cluster_that_is_promised_gpus_waits_for_them() -> None:
    assert fleet(LAPTOP).device == "cpu"
    assert fleet(LAPTOP, {"CPU": 64, "GPU": 8}).device == "cuda"
    assert fleet(LAPTOP, {"CPU": 64}).device == "cpu"
    assert fleet(LAPTOP, {"GPU": 8}, device="cpu").device == "cpu"


def test_a_worker_never_takes_parts_of_two_gpus() -> None:
    assert fleet([Node(8, 3), Node(8, 1)], gpus_per_worker=0.75).size == 4
    assert fleet([Node(8, 3), Node(8, 1)], gpus_per_worker=0.4).size == 8
    assert fleet([Node(8, 1)], gpus_per_worker=1 / 3).size == 3


@pytest.mark.parametrize("share", [1.5, 2.0, 8.0])
@pytest.mark.parametrize("nodes", [SERVER, LAPTOP], ids=["gpus", "none"])
def test_gpus_that_would_idle_are_refused(nodes: list[Node], share: float) -> None:
    with pytest.raises(UsageError, match="a worker computes on one GPU and the others would idle"):
        fleet(nodes, gpus_per_worker=share)
    assert fleet(nodes, gpus_per_worker=share, device="cpu").gpus == 0


def test_what_is_asked_for_is_taken() -> None:
    assert fleet(SERVER, device="cpu").gpus == 0
    asked = fleet(SERVER, max_workers=3, cpus_per_worker=6)
    assert (asked.size, asked.most, asked.resources) == (3, 3, "6 CPU and 1 GPU")
    assert fleet(LAPTOP, device="cuda", max_workers=2).device == "cuda"


@pytest.mark.parametrize(
    ("node", "there", "cores"),
    [
        (Node(8, 0), 8, 8),
        (Node(8, 0), 2, 2),
        (Node(4, 0), 16, 4),
        (None, 2, 2),
        (None, 64, 8),
    ],
)
def test_a_cpu_teacher_gets_the_cores_that_are_there(
    node: Node | None, there: int, cores: int
) -> None:
    assert fleet(LAPTOP).cores_on(node, there) == cores


def test_workers_of_one_machine_share_its_cores_whatever_ray_was_told() -> None:
    made = fleet(LAPTOP, max_workers=4)
    assert made.cores_on(Node(8, 0), 8) == 2
    assert made.cores_on(Node(8, 0), 4) == 1
    assert made.cores_on(Node(8, 0), 1) == 1


@given(
    lacking=st.dictionaries(st.sampled_from("abcd"), st.integers(0, 4)),
    there=st.dictionaries(st.sampled_from("abcd"), st.integers(0, 3)),
    started=st.integers(0, 16),
)
def test_workers_are_spread(lacking: dict[str, int], there: dict[str, int], started: int) -> None:
    order = spread(lacking, there)
    assert Counter(order) == Counter({name: n for name, n in lacking.items() if n})
    now = Counter({name: there.get(name, 0) for name in lacking}) + Counter(order[:started])
    # Nobody got a worker while another one that lacks some had fewer.
    for fuller in order[:started]:
        for name in order[started:]:
            assert now[fuller] <= now[name] + 1


@pytest.mark.parametrize(
    ("nodes", "settings"),
    [
        (LAPTOP, {}),
        (LAPTOP, {"min_workers": 8}),
        (SERVER, {"min_workers": 8}),
        ([Node(96, 8)], {"min_workers": 80, "gpus_per_worker": 0.1}),
        (CLUSTER, {"min_workers": 8, "cpus_per_worker": 8}),
        ([Node(1, 1), Node(1, 1)], {"min_workers": 2}),
    ],
)
def test_what_fits_is_not_refused(nodes: list[Node], settings: dict[str, Any]) -> None:
    check_fits(fleet(nodes, **settings), nodes)


@pytest.mark.parametrize(
    ("nodes", "settings", "message"),
    [
        (LAPTOP, {"device": "cuda"}, "1 workers of 1 CPU and 1 GPU .* have room for 0"),
        (LAPTOP, {"cpus_per_worker": 9}, r"9 CPU each .* \(8 CPU and 0 GPU\) have room for 0"),
        (LAPTOP, {"min_workers": 3, "cpus_per_worker": 3}, "have room for 2"),
        (SERVER, {"min_workers": 9}, "have room for 8"),
        (SERVER, {"gpus_per_worker": 0.6, "min_workers": 9}, "have room for 8"),
        ([Node(64, 1), Node(0, 7)], {"min_workers": 2}, "have room for 1"),
    ],
)
def test_what_can_never_fit_is_refused_with_what_there_is(
    nodes: list[Node], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as error:
        check_fits(fleet(nodes, **settings), nodes)
    assert "\n" not in str(error.value)
