"""Resources that Ray Train leaves taken when a trial ends early.

A trial that Tune ends takes its Train controller with it, but not the placement group of the
controller's workers (ray#54305). Train's own cleaner asks Ray's dashboard, which a local Ray does
without; so the group would stay, and the trials that are still to come would wait for ever. The
workers therefore leave its name in their run folder, and whoever ended the trial removes it: not
before the trial's process is gone, for a controller that lives would start other workers at once.
"""

import math
import time

import ray
from ray.util.placement_group import PlacementGroup, remove_placement_group

from egapipe.pipeline.results.runs import RunFolder
from egapipe.stages.distill.workers.launch import PLACEMENT

# Between two looks, each of which is a request where runs lie in an object store.
_LOOK_SECONDS = 0.5
# A process that is ended takes a moment, and a lease somewhere else longer.
_GONE_SECONDS = 90.0


class Ended:
    """Trainings that were ended, and whose workers are freed when their processes are gone."""

    def __init__(self) -> None:
        self._runs: list[RunFolder] = []
        self._looked = -math.inf

    def add(self, run: RunFolder) -> None:
        """A training was ended."""
        self._runs.append(run)

    def free(self) -> None:
        """Free the workers of those whose processes are gone."""
        if not self._runs or time.monotonic() < self._looked + _LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        for run in [run for run in self._runs if not run.in_use()]:
            free_workers(run)
            self._runs.remove(run)

    def free_all(self) -> None:
        """The same until none is left: nothing is to run any more."""
        deadline = time.monotonic() + _GONE_SECONDS
        while self._runs and time.monotonic() < deadline:
            self.free()
            time.sleep(_LOOK_SECONDS)
        for run in self._runs:
            free_workers(run)


def free_workers(run: RunFolder) -> bool:
    """Remove the placement group that a training which is over has left; whether there was one."""
    if not run.has(PLACEMENT):
        return False
    name = str(run.read_json(PLACEMENT)["group"])
    remove_placement_group(PlacementGroup(ray.PlacementGroupID.from_hex(name)))
    run.discard(PLACEMENT)
    return True
