"""The Ray session that launchers work in: joined where there is one, else started."""

import logging
import math
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from egapipe.pipeline.config.extract import ClusterConfig
from egapipe.pipeline.errors import EgapipeError, UsageError
from egapipe.pipeline.locations.urls import with_variables
from egapipe.pipeline.machine.cores import available_cpus

# Pixels and embeddings never pass through Ray's object store.
_OBJECT_STORE_BYTES = 256 * 2**20
_ANSWER_SECONDS = 10.0
# Of a job's metadata.
_FOLDER = "egapipe_folder"
_LOCALHOST = {"localhost", "127.0.0.1", "::1"}

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    # Relative paths of a configuration mean the same in a trial as in the command.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
# Without clusters a local Ray listens on the loopback interface alone. Its name is historical.
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}

_OWN = {"started": False}


class Node(NamedTuple):
    """Logical resources of a machine of the cluster. name: Ray's id of it. memory: bytes."""

    cpus: float
    gpus: float
    name: str = ""
    memory: float = math.inf


def cluster_nodes() -> list[Node]:
    """The living machines of the Ray that this process is connected to."""
    import ray

    return [
        Node(
            n["Resources"].get("CPU", 0.0),
            n["Resources"].get("GPU", 0.0),
            n["NodeID"],
            n["Resources"].get("memory", math.inf),
        )
        for n in ray.nodes()
        if n["Alive"]
    ]


def leaving_nodes() -> frozenset[str]:
    """Names of living machines that were told to go soon, as a spot instance is on notice."""
    import ray

    return frozenset(ray._private.state.state.get_draining_nodes())


def promised_resources() -> dict[str, float]:
    """The most of each resource that the cluster's autoscaler may have; empty without one."""
    import ray

    return dict(ray._private.state.state.get_max_resources_from_cluster_config() or {})


@contextmanager
def ray_session(config: ClusterConfig) -> Iterator[None]:
    """Connect to Ray for the length of a block, and disconnect only what was connected here.

    Taken in this order: the Ray this process is already in; `config.address`, or else the cluster
    that runs this process as a job (`RAY_ADDRESS`); a new local Ray on the loopback interface with
    `config.cpus` logical CPUs. Raises UsageError if nothing answers at the address.
    """
    address = with_variables(config.address or "") or os.environ.get("RAY_ADDRESS") or None
    quiet_environment(local=address is None)
    import ray

    if ray.is_initialized():
        yield
        return
    _start(address, config.cpus)
    _OWN["started"] = address is None
    try:
        yield
    finally:
        _OWN["started"] = False
        ray.shutdown()


def started_here() -> bool:
    """Whether the Ray that this process is in was started by `ray_session`, and is of this machine
    alone: it gets no more resources than it has."""
    return _OWN["started"]


def quiet_environment(*, local: bool) -> None:
    """Set what Ray reads from the environment when it is imported, unless it is set already.

    local: for a Ray of this machine, which then listens on the loopback interface alone. Must be
    called before the first `import ray` of the process.
    """
    for name, value in (_QUIET | _LOOPBACK if local else _QUIET).items():
        os.environ.setdefault(name, value)


_REFUSED = (OSError, RuntimeError, ValueError)


def _start(address: str | None, cpus: int | None) -> None:
    import ray

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    options["job_config"] = _job_config()
    if address is None:
        options |= {"num_cpus": cpus or available_cpus(), "include_dashboard": False}
        options |= {"object_store_memory": _OBJECT_STORE_BYTES}
    else:
        _check_answers(address)
    try:
        # Without `local`, Ray joins whichever cluster this machine has announced.
        ray.init(address=address or "local", **options)
    except Exception as error:  # a bare one where a node does not start in time
        if type(error) is not Exception and not isinstance(error, _REFUSED):
            raise
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        if address is None:
            raise EgapipeError(f"Ray cannot be started on this machine: {reason}") from error
        raise UsageError(_no_cluster(address, reason)) from error


class _Nowhere(list[str]):
    """Search path of Ray's workers: it stays as it is, whatever Ray would put before it."""

    def extend(self, folders: object) -> None:
        """Ray puts the driver's working directory first, where any `pyarrow.py` would be run."""


def _job_config() -> Any:
    """Workers import what is installed; `driver_folder` knows where else a module may be."""
    from ray.job_config import JobConfig

    config = JobConfig(metadata={_FOLDER: os.getcwd()})
    config._py_driver_sys_path = _Nowhere()
    return config


def driver_folder() -> str | None:
    """In a worker of Ray, the working directory of the command that started it; else None."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    core = getattr(ray._private.worker.global_worker, "core_worker", None)
    return core.get_job_config().metadata.get(_FOLDER) or None if core is not None else None


def _check_answers(address: str) -> None:
    """Ask the port first: Ray would try for minutes and then print a traceback."""
    if address in ("auto", "local"):
        return
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(_no_cluster(address, str(error))) from None
    if host is None or port is None:
        return
    if host in _LOCALHOST and not parts.scheme:
        import ray

        # What Ray makes of it: this machine's own address, where a cluster listens.
        host = ray.util.get_node_ip_address()
    try:
        with closing(socket.create_connection((host, port), _ANSWER_SECONDS)):
            pass
    except OSError as error:
        raise UsageError(_no_cluster(address, str(error))) from None


def _no_cluster(address: str, reason: str) -> str:
    return (
        f"no Ray cluster answers at {address} ({reason}): start one with `ray start --head`, set "
        "RAY_AUTH_MODE=token if it wants a token, or leave cluster.address and RAY_ADDRESS empty "
        "to start a local one"
    )
