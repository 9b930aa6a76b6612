"""A program: train on a Ray cluster of so many nodes and lose one that a worker is on."""

import json
import sys
import threading
import time

from egapipe.pipeline.machine.cluster import quiet_environment

quiet_environment(local=True)

import psutil  # noqa: E402
import ray  # noqa: E402
from ray._private.node import Node  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

from egapipe.pipeline.config import Config, load_config, override  # noqa: E402
from egapipe.pipeline.config.load import check  # noqa: E402
from egapipe.pipeline.results.tracking import read_metrics  # noqa: E402
from egapipe.stages import distill  # noqa: E402
from egapipe.stages.distill.folder import training_folder  # noqa: E402

OBJECT_STORE = 100 * 2**20


def lose_a_node(cluster: Cluster, config: Config, lost: list[str]) -> None:
    """After the first epoch, without grace, a node that a worker trains on."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        for node in cluster.list_all_nodes() if read_metrics(training_folder(config)) else ():
            if node.is_head() or not trains(node):
                continue
            lost.append(node.node_id)
            cluster.remove_node(node, allow_graceful=False)
            return
        time.sleep(0.1)


def trains(node: Node) -> bool:
    """Whether a worker of Ray Train is among the processes of a node."""
    [raylet] = node.all_processes["raylet"]
    try:
        children = psutil.Process(raylet.process.pid).children(recursive=True)
        return any("RayTrainWorker" in " ".join(child.cmdline()) for child in children)
    except psutil.NoSuchProcess:
        return False


def main(file: str, nodes: int) -> None:
    """Train, and print what was lost and where the run is."""
    # The head has no room for a worker: each of them is on a node of its own.
    head = {"num_cpus": 0, "object_store_memory": OBJECT_STORE, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(nodes):
        cluster.add_node(num_cpus=1, object_store_memory=OBJECT_STORE)
    tree = override(load_config(file).model_dump(mode="json"), {"cluster.address": cluster.address})
    config = check(tree, file)
    ray.init(address=cluster.address, log_to_driver=False)
    lost: list[str] = []
    killer = threading.Thread(target=lose_a_node, args=(cluster, config, lost))
    killer.start()
    done = distill.run(config)
    killer.join()
    print(json.dumps({"lost": lost, "run": str(done.run)}))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(sys.argv[2], int(sys.argv[1]))
