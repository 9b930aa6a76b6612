"""Resources that Ray Train leaves taken when a trial ends early.

A trial that Tune ends takes its Train controller with it, but not the placement group of the
controller's workers (ray#54305). Train's own cleaner asks Ray's dashboard, which a local Ray does
without; so the group would stay, and the trials that are still to come would wait for ever.
"""

import time
from typing import Any

import ray
from ray._private.state import state

# Its classes are made at import.
from ray.core.generated.gcs_pb2 import PlacementGroupTableData  # type: ignore[attr-defined]
from ray.util.placement_group import PlacementGroup, remove_placement_group


def remove_orphaned_groups() -> int:
    """Remove this job's placement groups whose creator, an actor, is dead; how many there were."""
    orphaned = [group for group in _groups_of_actors() if group.creator_actor_dead]
    for group in orphaned:
        remove_placement_group(PlacementGroup(ray.PlacementGroupID(group.placement_group_id)))
    return len(orphaned)


def remove_remaining_groups(seconds: float = 30) -> None:
    """The same once nothing is to run any more: an actor that was ended takes a moment to be dead.

    Waits until no actor of this job has a placement group, at most so long.
    """
    deadline = time.monotonic() + seconds
    while _groups_of_actors() and time.monotonic() < deadline:
        if not remove_orphaned_groups():
            time.sleep(0.2)


def _groups_of_actors() -> list[Any]:
    """This job's placement groups that an actor made, and that nobody has removed."""
    job = ray.get_runtime_context().get_job_id()
    # The public table does not name the creator.
    table = state._connect_and_get_accessor().get_placement_group_table()
    groups = (PlacementGroupTableData.FromString(data) for data in table)
    return [
        group
        for group in groups
        if group.creator_job_id.hex() == job
        and not group.is_detached
        # Of the driver's own groups, which are Tune's, it says that their actor is dead.
        and group.creator_actor_id.strip(b"\xff")
        and group.state != PlacementGroupTableData.REMOVED
    ]
