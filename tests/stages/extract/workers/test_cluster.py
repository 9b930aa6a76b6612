"""Clusters whose nodes differ, come late and go without a word.

Slow, because every node is a Ray of its own that takes seconds to start and to be missed.
"""

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from egapipe.pipeline.config import Config
from egapipe.pipeline.config.data import DigitsSource
from egapipe.pipeline.store import check_store
from egapipe.pipeline.terminal.progress import Value
from egapipe.stages import extract
from tests.stages.extract.conftest import MakeConfig
from tests.stages.extract.contents import content
from tests.stages.extract.failing.poison import Gated
from tests.stages.extract.workers.actors import actor, committed
from tests.stages.extract.workers.nodes import Nodes, cluster, elsewhere
from tests.stages.extract.workers.test_pooled import Watching

pytestmark = pytest.mark.slow
GATE, SHARDS = 4, 40


class Play:
    """A pool of workers with half a logical GPU each, while nodes come and go.

    All shards from GATE on wait until the last act, so that nothing depends on who is faster.
    """

    def __init__(self, nodes: Nodes, folder: Path) -> None:
        self.nodes = nodes
        self.folder = folder
        self.notes: list[str] = []
        self.acts = [self.first_node, self.another_node, self.it_dies, self.a_third]
        self.gone: Any = None
        (folder / f"gate-{GATE}").touch()

    def ready(self) -> int:
        return len(list(self.folder.glob("ready-*")))

    def lost(self) -> list[str]:
        return [note for note in self.notes if "lost its worker" in note]

    def first_node(self) -> bool:
        """The run began with the workers that fit."""
        if self.ready() < 2:
            return False
        self.gone = self.nodes.add(num_cpus=3, num_gpus=1)
        return True

    def another_node(self) -> bool:
        """The others joined when their node came."""
        if self.ready() < 4:
            return False
        self.nodes.kill(self.gone)
        return True

    def it_dies(self) -> bool:
        """Its shards wait for another worker."""
        if len(self.lost()) < 2:
            return False
        self.nodes.add(num_cpus=1, num_gpus=1)
        return True

    def a_third(self) -> bool:
        """There the workers of the dead node are replaced."""
        if self.ready() < 6:
            return False
        (self.folder / f"gate-{GATE}").unlink()
        return True

    def run(self) -> list[int]:
        from egapipe.stages.extract.workers.pool.pool import Pool
        from egapipe.stages.extract.workers.pool.terms import Terms

        terms = Terms(1, 4, 2, wait=120, resources="0.5 GPU", patience=1000)
        hired = actor(num_cpus=0.5, num_gpus=0.5)
        done = []
        with Pool(
            lambda machine, avoid: hired.remote(),
            terms,
            arguments=lambda where: (str(self.folder), 0.05),
            committed=lambda shard: committed(self.folder, shard),
            note=self.notes.append,
        ) as pool:
            for answer in pool.run(range(SHARDS)):
                done += [answer.shard] if answer is not None else []
                while self.acts and self.acts[0]():
                    del self.acts[0]
        return done


def play(folder: Path) -> tuple[list[int], list[str]]:
    with cluster(num_cpus=1, num_gpus=1) as nodes:
        stage = Play(nodes, folder)
        return stage.run(), stage.lost()


def test_workers_join_late_and_a_dead_node_costs_the_shards_in_flight(tmp_path: Path) -> None:
    done, lost = elsewhere(play, tmp_path)
    assert sorted(done) == list(range(SHARDS))
    assert len(lost) == 2


def extract_while_a_node_dies(config: Config) -> tuple[str, list[str]]:
    with cluster(num_cpus=1) as nodes:
        second = nodes.add(num_cpus=1)
        watching = Watching(lambda: nodes.kill(second))
        report = extract.run(config, split="train", progress=watching)
        return report.url, watching.notes


def test_the_store_is_the_same_when_a_node_dies(quick: MakeConfig, tmp_path: Path) -> None:
    many = ["dataset.train.limit=200", "views.count=9", "store.shard_rows=10"]
    many += ["store.dtype=float32"]
    alone = extract.run(quick(*many, f"store.url={tmp_path / 'alone'}"), split="train", local=True)
    two = ["extract.min_workers=2", "extract.cpus_per_worker=1"]
    url, notes = elsewhere(extract_while_a_node_dies, quick(*many, *two))
    # Its worker stores one shard at a time and encodes one beside it. What it has stored before is
    # in the store, and believed, even if the node went before it could say so.
    assert len([note for note in notes if "lost its worker" in note]) <= 2
    assert content(url) == content(alone.url)
    assert check_store(url).ok


class Growing(Watching):
    """Adds a machine at the first finished rows, gives the first one notice once that has a worker,
    and opens the gate when that was noticed."""

    def __init__(self, nodes: Nodes, first: str, gate: Path) -> None:
        super().__init__(lambda: nodes.add(num_cpus=1))
        self.first, self.gate, self.drained = first, gate, False

    def show(self, state: Mapping[str, Value]) -> None:
        super().show(state)
        if not self.drained and float(state["done"]) > 0 and len(machines_at_work()) > 1:
            self.drained = True
            give_notice(self.first)
        if any("is about to leave" in note for note in self.notes):
            self.gate.unlink(missing_ok=True)


def machines_at_work() -> set[str]:
    """Machines with an actor that lives."""
    import ray

    actors = ray._private.state.actors().values()
    return {a["Address"]["NodeID"] for a in actors if a["State"] == "ALIVE"}


def give_notice(node: str) -> None:
    """As a cloud does before it takes a spot instance back."""
    import ray
    from ray.core.generated.autoscaler_pb2 import DrainNodeReason  # type: ignore[attr-defined]

    reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    deadline = int(1000 * (time.time() + 600))
    client = ray._private.worker.global_worker.gcs_client  # type: ignore[attr-defined]
    assert client.drain_node(node, reason, "spot", deadline)[0]


def extract_while_a_cluster_changes(config: Config, gate: Path) -> tuple[str, list[str]]:
    with cluster(num_cpus=0) as nodes:
        watching = Growing(nodes, nodes.add(num_cpus=1).node_id, gate)
        # In a cluster, not in a Ray of its own.
        os.environ["RAY_ADDRESS"] = "auto"
        [extraction] = extract.prepare(config, ["train"])
        source = config.dataset.train
        assert isinstance(source, DigitsSource)
        job = replace(extraction.job, dataset=Gated(source, str(gate), 30))
        report = replace(extraction, job=job).run(local=False, progress=watching)
        return report.url, watching.notes


def test_a_machine_that_comes_is_used_and_one_on_notice_finishes_what_it_has(
    quick: MakeConfig, tmp_path: Path
) -> None:
    many = ["dataset.train.limit=120", "views.count=2", "store.shard_rows=5"]
    many += ["store.dtype=float32"]
    alone = extract.run(quick(*many, f"store.url={tmp_path / 'alone'}"), split="train", local=True)
    gate = tmp_path / "gate"
    gate.touch()
    url, notes = elsewhere(extract_while_a_cluster_changes, quick(*many), gate)
    assert content(url) == content(alone.url)
    assert [note for note in notes if "is about to leave the cluster" in note]
    assert not [note for note in notes if "lost its worker" in note]
    assert [note for note in notes if "has a GPU, and none is promised" in note]
