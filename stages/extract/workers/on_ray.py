"""Extraction over a pool of Ray workers."""

import os
import pickle
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any

from egapipe.pipeline.cluster import cluster_nodes, ray_session
from egapipe.pipeline.store import Commit
from egapipe.stages.extract.planning.host import sample
from egapipe.stages.extract.planning.job import Job
from egapipe.stages.extract.workers.fleet import Fleet, check_fits, plan_fleet


def extract_pooled(
    job: Job, shards: Sequence[int], note: Callable[[str], None]
) -> Generator[Commit | None, None, None]:
    """Extract shards over the cluster's workers; None about once a second while they work.

    note: told about workers that were lost. Raises UsageError if there is no cluster, or none with
    the resources that are asked for.
    """
    settings = job.config.extract
    with ray_session(job.config.cluster):
        # Ray reads its environment when it is imported, so the session comes first.
        from egapipe.stages.extract.workers.pool import Pool, Terms

        fleet = _fleet(job)
        terms = Terms(
            size=fleet.size,
            minimum=fleet.minimum,
            max_restarts=settings.max_restarts,
            start_timeout=settings.start_timeout,
            resources=fleet.resources,
        )
        with Pool(
            partial(_hire, fleet),
            terms,
            arguments=(
                pickle.dumps(job),
                sample(job.dataset),
                fleet.device,
                fleet.cpus,
                os.getcwd(),
            ),
            committed=job.store.commit,
            note=note,
        ) as pool:
            yield from pool.run(shards)


def _fleet(job: Job) -> Fleet:
    nodes = cluster_nodes()
    fleet = plan_fleet(job.config.extract, nodes, os.cpu_count() or 1)
    if job.config.cluster.address is None and "RAY_ADDRESS" not in os.environ:
        # A Ray of our own has what it has; a cluster may grow when it is asked for more.
        check_fits(fleet, nodes)
    return fleet


def _hire(fleet: Fleet) -> Any:
    import ray

    from egapipe.stages.extract.workers.actor import ExtractActor

    actor = ray.remote(ExtractActor).options(num_cpus=fleet.cpus, num_gpus=fleet.gpus)
    return actor.remote()
