"""The resources of Ray Train's workers are free once their training was ended from outside."""

from pathlib import Path

import pytest
import ray
from ray.util.placement_group import placement_group

from egapipe.pipeline.results.runs import RunFolder
from egapipe.stages.distill.workers.launch import PLACEMENT
from egapipe.stages.experiment.groups import Ended, free_workers

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


def test_a_group_stays_while_the_process_of_its_training_lives(tmp_path: Path) -> None:
    """Its controller would ask for another one in its place."""
    group = placement_group([{"CPU": 1}])
    ray.get(group.ready())
    run, ended = RunFolder(tmp_path / "run"), Ended()
    run.path.mkdir()
    run.write_json(PLACEMENT, {"group": group.id.hex()})
    with run.exclusive():
        ended.add(run)
        ended.free()
        assert run.has(PLACEMENT)
    ended.free_all()
    assert not run.has(PLACEMENT)
    assert ray.util.placement_group_table(group)["state"] == "REMOVED"
