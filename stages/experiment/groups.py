"""Resources that Ray Train leaves taken when a trial ends early.

A trial that Tune ends takes its Train controller with it, but not the placement group of the
controller's workers (ray#54305). Train's own cleaner asks Ray's dashboard, which a local Ray does
without; so the group would stay, and the trials that are still to come would wait for ever. The
workers therefore leave its name in their run folder, and whoever ended the trial removes it.
"""

import ray
from ray.util.placement_group import PlacementGroup, remove_placement_group

from egapipe.pipeline.results.runs import RunFolder
from egapipe.stages.distill.workers.launch import PLACEMENT


def free_workers(run: RunFolder) -> bool:
    """Remove the placement group that a training which is over has left; whether there was one."""
    if not run.has(PLACEMENT):
        return False
    name = str(run.read_json(PLACEMENT)["group"])
    remove_placement_group(PlacementGroup(ray.PlacementGroupID.from_hex(name)))
    run.discard(PLACEMENT)
    return True
