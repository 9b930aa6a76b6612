"""Extraction over a pool of Ray workers."""

import math
import os
import pickle
from collections.abc import Callable, Collection, Generator, Sequence
from typing import Any

from egapipe.pipeline.config.extract import ExtractConfig
from egapipe.pipeline.machine.cluster import (
    Node,
    cluster_nodes,
    leaving_nodes,
    promised_resources,
    ray_session,
)
from egapipe.pipeline.store import Commit
from egapipe.stages.extract.planning.host import sample
from egapipe.stages.extract.planning.job import Job
from egapipe.stages.extract.workers.pool.fleet import Fleet, check_fits, plan_fleet


def extract_pooled(
    job: Job,
    shards: Sequence[int],
    note: Callable[[str], None],
    show: Callable[[Sequence[str]], None] = lambda lines: None,
) -> Generator[Commit | None, None, None]:
    """Extract shards over the cluster's workers; None about once a second while they work.

    note: told about workers that were lost. show: given a line a worker, now and then. Raises
    UsageError if there is no cluster, or none with the resources that are asked for.
    """
    with ray_session(job.config.cluster):
        # Ray reads its environment when it is imported, so the session comes first.
        from egapipe.stages.extract.workers.pool.pool import Pool
        from egapipe.stages.extract.workers.pool.status import worker_lines
        from egapipe.stages.extract.workers.pool.terms import Ground

        fleet = _fleet(job, note)
        known: dict[str, Node] = {}

        def ground() -> Ground:
            leaving, nodes = leaving_nodes(), cluster_nodes()
            known.update((node.name, node) for node in nodes)
            alive = {node.name: fleet.places(node) for node in nodes}
            staying = {name: n for name, n in alive.items() if n and name not in leaving}
            return Ground(staying, leaving & alive.keys())

        samples = sample(job.dataset)
        job.images.learn(job.dataset.extents(list(samples)))
        given = (pickle.dumps(job), samples, fleet.device, os.getcwd())
        with Pool(
            lambda machine, avoid: _hire(fleet, known.get(machine or ""), avoid),
            _terms(job.config.extract, fleet),
            arguments=lambda where: (
                *given,
                fleet.cores_on(known.get(where.machine), where.cores),
                fleet.share_on(known.get(where.machine)),
            ),
            committed=job.store.commit,
            note=note,
            ground=ground,
            sent=lambda work: (*work, job.extents(work.shard, work.upcoming)),
        ) as pool:
            for commit in pool.run(shards):
                show(worker_lines(pool.members, job.store.manifest.view_count))
                yield commit


def _terms(settings: ExtractConfig, fleet: Fleet) -> Any:
    from egapipe.stages.extract.workers.pool.terms import Terms

    return Terms(
        minimum=fleet.minimum,
        most=fleet.most,
        max_restarts=settings.max_restarts,
        resources=fleet.resources,
        wait=math.inf if settings.wait == "forever" else settings.wait,
        start_timeout=settings.start_timeout,
        stall_timeout=settings.stall_timeout,
        machine_failures=settings.max_machine_failures,
    )


def _fleet(job: Job, note: Callable[[str], None]) -> Fleet:
    nodes, settings = cluster_nodes(), job.config.extract
    if job.config.cluster.address is None and "RAY_ADDRESS" not in os.environ:
        # A Ray of our own has what it has; a cluster may grow when it is asked for more.
        fleet = plan_fleet(settings, nodes)
        check_fits(fleet, nodes)
        return fleet
    fleet = plan_fleet(settings, nodes, promised_resources())
    if settings.device == "auto" and fleet.device == "cpu":
        note(
            "no machine of the cluster has a GPU, and none is promised: workers compute on CPUs; "
            "extract.device=cuda waits for GPUs"
        )
    return fleet


def _hire(fleet: Fleet, node: Node | None, avoid: Collection[str]) -> Any:
    """An actor on a machine, or on any but some."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from egapipe.stages.extract.workers.pool.actor import ExtractActor
    from egapipe.stages.extract.workers.pool.calls import PULSE, STORE

    groups: Any = {"concurrency_groups": {PULSE: 1, STORE: 1}}
    actor = ray.remote(**groups)(ExtractActor)
    if node is not None:
        there = NodeAffinitySchedulingStrategy(node.name, soft=False)
        return actor.options(
            num_cpus=fleet.cpus_on(node), num_gpus=fleet.gpus, scheduling_strategy=there
        ).remote()
    elsewhere = {"ray.io/node-id": f"!in({','.join(sorted(avoid))})"} if avoid else None
    return actor.options(
        num_cpus=fleet.usual_cpus,
        num_gpus=fleet.gpus,
        scheduling_strategy="SPREAD",
        label_selector=elsewhere,
    ).remote()
