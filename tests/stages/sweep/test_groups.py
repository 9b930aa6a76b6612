"""Placement groups whose creator is gone are removed, and no others."""

import time
from collections.abc import Iterator

import pytest
import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from egapipe.stages.sweep.groups import remove_orphaned_groups, remove_remaining_groups

pytestmark = pytest.mark.usefixtures("ray_cluster")


class Creator:
    """What Ray Train's controller does for its workers."""

    def create(self) -> PlacementGroup:
        group = placement_group([{"CPU": 1}] * 2)
        ray.get(group.ready())
        return group


@pytest.fixture
def own_group() -> Iterator[PlacementGroup]:
    """A group of the driver itself, as Tune makes them for trials."""
    group = placement_group([{"CPU": 1}])
    ray.get(group.ready())
    yield group
    remove_placement_group(group)


def state_of(group: PlacementGroup) -> str:
    return str(ray.util.placement_group_table(group)["state"])


def test_only_those_of_dead_actors_are_removed(own_group: PlacementGroup) -> None:
    creators = [ray.remote(num_cpus=0)(Creator).remote() for _ in range(2)]
    orphan, kept = ray.get([creator.create.remote() for creator in creators])
    assert remove_orphaned_groups() == 0
    ray.kill(creators[0])
    deadline = time.monotonic() + 60
    while not remove_orphaned_groups() and time.monotonic() < deadline:
        time.sleep(0.05)
    states = (state_of(orphan), state_of(kept), state_of(own_group))
    assert states == ("REMOVED", "CREATED", "CREATED")
    remove_placement_group(kept)


def test_the_end_waits_for_the_dead_and_not_for_ever_for_the_living(
    own_group: PlacementGroup,
) -> None:
    creators = [ray.remote(num_cpus=0)(Creator).remote() for _ in range(2)]
    orphan, kept = ray.get([creator.create.remote() for creator in creators])
    ray.kill(creators[0])
    remove_remaining_groups(seconds=6)
    assert (state_of(orphan), state_of(kept)) == ("REMOVED", "CREATED")
    ray.kill(creators[1])
    remove_remaining_groups(seconds=60)
    assert (state_of(kept), state_of(own_group)) == ("REMOVED", "CREATED")
