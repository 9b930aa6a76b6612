"""A Ray of several nodes on this machine.

It lives in a process of its own, because a process can be in one Ray only and the tests are in
theirs.
"""

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from egapipe.pipeline.machine.cluster import quiet_environment

T = TypeVar("T")
_SMALL = {"object_store_memory": 80 * 2**20}


def elsewhere(act: Callable[..., T], *arguments: object) -> T:
    """What a function returns or raises in a new process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(act, *arguments).result(timeout=280)


class Nodes:
    """Nodes that come and go."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster

    def add(self, **resources: float) -> Any:
        return self._cluster.add_node(**resources, **_SMALL)

    def kill(self, node: Any) -> None:
        """As if its plug were pulled."""
        self._cluster.remove_node(node, allow_graceful=False)


@contextmanager
def cluster(**head: float) -> Iterator[Nodes]:
    """A cluster of which this process is the driver."""
    quiet_environment(local=True)
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        # A cluster announces itself there, to everybody who would start a Ray of his own.
        os.environ["RAY_TMPDIR"] = folder
        import ray
        from ray.cluster_utils import Cluster

        found = Cluster(
            initialize_head=True, head_node_args={**head, **_SMALL, "include_dashboard": False}
        )
        ray.init(address=found.address, log_to_driver=False)
        try:
            yield Nodes(found)
        finally:
            ray.shutdown()
            found.shutdown()
