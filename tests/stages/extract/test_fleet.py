"""How many workers a cluster gets, and when it has no room for them."""

from typing import Any

import pytest

from egapipe.pipeline.cluster import Node
from egapipe.pipeline.config.extract import ExtractConfig
from egapipe.pipeline.errors import UsageError
from egapipe.stages.extract.workers.fleet import Fleet, check_fits, plan_fleet

LAPTOP = [Node(8, 0)]
SERVER = [Node(64, 8)]
CLUSTER = [Node(4, 0), Node(32, 4), Node(32, 4)]


def fleet(nodes: list[Node], cores: int = 8, **settings: Any) -> Fleet:
    return plan_fleet(ExtractConfig(**settings), nodes, cores)


def test_a_cpu_gets_one_worker_with_all_cores() -> None:
    assert fleet(LAPTOP) == Fleet("cpu", size=1, minimum=1, cpus=8, gpus=0.0)


def test_several_workers_share_the_cores() -> None:
    assert fleet(LAPTOP, max_workers=4).cpus == 2
    assert fleet(LAPTOP, max_workers=20).cpus == 1
    assert fleet(LAPTOP, min_workers=3) == Fleet("cpu", size=3, minimum=3, cpus=2, gpus=0.0)
    assert fleet(LAPTOP, cores=2).cpus == 2


def test_every_gpu_gets_a_worker_that_waits_for_one_cpu_only() -> None:
    assert fleet(SERVER) == Fleet("cuda", size=8, minimum=1, cpus=1, gpus=1.0)
    assert fleet(CLUSTER).size == 8


def test_gpus_are_shared_or_taken_together() -> None:
    assert fleet(SERVER, gpus_per_worker=0.5).size == 16
    assert fleet(SERVER, gpus_per_worker=0.1).size == 80
    assert fleet(SERVER, gpus_per_worker=2).size == 4


def test_every_machine_of_a_cluster_without_gpus_gets_a_worker_that_it_has_room_for() -> None:
    different = [Node(4, 0), Node(16, 0), Node(0, 0), Node(16, 0)]
    assert fleet(different, cores=64) == Fleet("cpu", size=3, minimum=1, cpus=4, gpus=0.0)
    assert fleet(different, cores=64, max_workers=6).cpus == 2
    assert fleet(different, cores=64, min_workers=5) == Fleet("cpu", 5, 5, cpus=2, gpus=0.0)


def test_a_worker_never_takes_gpus_of_two_machines() -> None:
    pairs = [Node(8, 3), Node(8, 3), Node(8, 1)]
    assert fleet(pairs, gpus_per_worker=2).size == 2
    assert fleet([Node(8, 1), Node(8, 1)], gpus_per_worker=4).device == "cpu"


def test_a_worker_never_takes_parts_of_two_gpus() -> None:
    assert fleet([Node(8, 3), Node(8, 1)], gpus_per_worker=0.75).size == 4
    assert fleet([Node(8, 3), Node(8, 1)], gpus_per_worker=0.4).size == 8
    assert fleet([Node(8, 1)], gpus_per_worker=1 / 3).size == 3


def test_shares_that_ray_cannot_give_out_are_refused() -> None:
    with pytest.raises(UsageError, match=r"gpus_per_worker is 1\.5: Ray shares one GPU or gives"):
        fleet(SERVER, gpus_per_worker=1.5)
    assert fleet(LAPTOP, gpus_per_worker=1.5).device == "cpu"


def test_what_is_asked_for_is_taken() -> None:
    assert fleet(SERVER, device="cpu").gpus == 0
    assert fleet(SERVER, max_workers=3, cpus_per_worker=6) == Fleet("cuda", 3, 1, 6, 1.0)
    assert fleet(LAPTOP, device="cuda", max_workers=2).device == "cuda"


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
        (CLUSTER, {"gpus_per_worker": 5}, "have room for 0"),
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
