"""Resources that Ray Train leaves taken when a trial ends early.

A trial that Tune ends takes its Train controller with it, but not the placement group of the
controller's workers (ray#54305). Train's own cleaner asks Ray's dashboard, which a local Ray does
without; so the group would stay, and the trials that are still to come would wait for ever.
"""

import ray
from ray._private.state import state

# Its classes are made at import.
from ray.core.generated.gcs_pb2 import PlacementGroupTableData  # type: ignore[attr-defined]
from ray.util.placement_group import PlacementGroup, remove_placement_group


def remove_orphaned_groups() -> int:
    """Remove this job's placement groups whose creator, an actor, is dead; how many there were."""
    job = ray.get_runtime_context().get_job_id()
    removed = 0
    # The public table does not name the creator.
    for data in state._connect_and_get_accessor().get_placement_group_table():
        group = PlacementGroupTableData.FromString(data)
        ours = group.creator_job_id.hex() == job and not group.is_detached
        # Of the driver's own groups, which are Tune's, it says that their actor is dead.
        orphaned = group.creator_actor_dead and group.creator_actor_id.strip(b"\xff")
        if ours and orphaned and group.state != PlacementGroupTableData.REMOVED:
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(group.placement_group_id)))
            removed += 1
    return removed
