"""How many workers there are and what each takes: a pure function of settings and machines."""

from collections.abc import Sequence
from dataclasses import dataclass

from egapipe.pipeline.cluster import Node
from egapipe.pipeline.config.extract import ExtractConfig
from egapipe.pipeline.errors import UsageError

# A third of a GPU fits three times.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Fleet:
    """Workers alike."""

    device: str
    """cpu or cuda."""
    size: int
    """Workers asked for."""
    minimum: int
    """Workers to start with."""
    cpus: int
    """CPUs a worker takes, and its teacher's cores on the CPU."""
    gpus: float
    """GPUs a worker takes."""

    @property
    def resources(self) -> str:
        """What one worker takes, in words."""
        return f"{self.cpus} CPU" + (f" and {self.gpus:g} GPU" if self.gpus else "")


def plan_fleet(settings: ExtractConfig, nodes: Sequence[Node], cores: int) -> Fleet:
    """The workers of a run.

    nodes: the cluster's machines. cores: CPU cores of this machine. On `cuda` every GPU, or every
    share of one, gets its worker. On CPU every machine gets one: its teacher's passes run side by
    side on all cores, and several workers would hold as many teachers. Raises UsageError if Ray
    could not give out such GPUs.
    """
    share = settings.gpus_per_worker
    places = sum(_places(node.gpus, share) for node in nodes)
    device = settings.device
    if device == "auto":
        device = "cuda" if sum(node.gpus for node in nodes) >= share else "cpu"
    if device == "cuda" and share > 1 and share != int(share):
        raise UsageError(
            f"extract.gpus_per_worker is {share:g}: Ray shares one GPU or gives out whole ones, "
            "set it to a fraction of 1 or to an integer"
        )
    machines = max(1, sum(node.cpus >= 1 for node in nodes))
    default = places if device == "cuda" else machines
    size = settings.max_workers or max(default, settings.min_workers)
    return Fleet(
        device=device,
        size=size,
        minimum=settings.min_workers,
        cpus=settings.cpus_per_worker or _cpus(device, -(-size // machines), nodes, cores),
        gpus=share if device == "cuda" else 0.0,
    )


def check_fits(fleet: Fleet, nodes: Sequence[Node]) -> None:
    """Raise UsageError if the machines cannot hold the minimum: it would be waited for in vain."""
    room = sum(_room(fleet, node) for node in nodes)
    if room >= fleet.minimum:
        return
    there = "; ".join(f"{node.cpus:g} CPU and {node.gpus:g} GPU" for node in nodes)
    raise UsageError(
        f"{fleet.minimum} workers of {fleet.resources} each are needed, but Ray's machines "
        f"({there}) have room for {room}: change extract.device, extract.min_workers, "
        "extract.cpus_per_worker or extract.gpus_per_worker"
    )


def _cpus(device: str, workers: int, nodes: Sequence[Node], cores: int) -> int:
    """CPUs a worker takes where so many share a machine."""
    if device == "cuda":
        # A GPU's worker computes on the GPU: it must not wait for CPUs that nobody needs.
        return 1
    # The smallest machine is to have room for its worker too.
    smallest = int(min((node.cpus for node in nodes if node.cpus >= 1), default=1))
    return max(1, min(cores, smallest) // workers)


def _room(fleet: Fleet, node: Node) -> int:
    """How many workers a machine can hold."""
    room = int(node.cpus // fleet.cpus)
    return min(room, _places(node.gpus, fleet.gpus)) if fleet.gpus else room


def _places(gpus: float, share: float) -> int:
    """Workers that a machine's GPUs can hold. A share is one of a single GPU."""
    if share < 1:
        return int(gpus) * int(1 / share + _ROUNDING)
    return int(gpus / share)
