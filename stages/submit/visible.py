"""Whether every node of a cluster sees the folders that a job writes."""

import os
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from egapipe.pipeline.errors import UsageError

_SECONDS = 120.0


def check_visible(folders: Iterable[str]) -> None:
    """Write a file into each folder and let every node of the running Ray look for it.

    A folder of one machine alone would be filled by workers there, and missed by all others.
    Raises UsageError that names the folder and the nodes.
    """
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    for folder in folders:
        probe = Path(folder) / f".egapipe-{uuid.uuid4().hex}"
        try:
            probe.parent.mkdir(parents=True, exist_ok=True)
            probe.touch()
        except OSError as error:
            raise UsageError(
                f"{folder} cannot be written on the node that runs the job: {error.strerror}"
            ) from None
        try:
            _look(folder, probe, nodes)
        finally:
            probe.unlink(missing_ok=True)


def _look(folder: str, probe: Path, nodes: list[dict[str, Any]]) -> None:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    look = ray.remote(num_cpus=0)(os.path.exists)
    calls = {}
    for node in nodes:
        on_it = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        call = look.options(scheduling_strategy=on_it).remote(str(probe))
        calls[call] = node["NodeManagerAddress"]
    ready, late = ray.wait(list(calls), num_returns=len(calls), timeout=_SECONDS)
    blind = [calls[call] for call in ready if not ray.get(call)] + [calls[call] for call in late]
    if blind:
        raise UsageError(
            f"{folder} is not seen by {len(blind)} of {len(nodes)} nodes "
            f"({', '.join(sorted(blind)[:5])}): put it on a file system that "
            "all nodes share, or (but for sweeps) on an object store"
        )
