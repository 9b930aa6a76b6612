"""The resources of Ray Train's workers are free once their training was ended from outside."""

from pathlib import Path

import pytest
import ray
from ray.util.placement_group import placement_group

from egapipe.pipeline.results.runs import RunFolder
from egapipe.stages.distill.workers.launch import PLACEMENT
from egapipe.stages.experiment.groups import free_workers

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_the_group_that_workers_have_named_is_removed_and_no_other(tmp_path: Path) -> None:
    groups = [placement_group([{"CPU": 1}] * 2) for _ in range(2)]
    ray.get([group.ready() for group in groups])
    run = RunFolder(tmp_path)
    assert not free_workers(run)
    run.write_json(PLACEMENT, {"group": groups[0].id.hex()})
    assert free_workers(run)
    states = [ray.util.placement_group_table(group)["state"] for group in groups]
    assert states == ["REMOVED", "CREATED"]
    assert not run.has(PLACEMENT)
    # Twice, as of a driver that was killed in between.
    run.write_json(PLACEMENT, {"group": groups[0].id.hex()})
    assert free_workers(run)
    ray.util.remove_placement_group(groups[1])
