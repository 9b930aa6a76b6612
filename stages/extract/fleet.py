"""How many workers there are and what each takes: a pure function of settings and machines."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from egapipe.pipeline.config.extract import ExtractConfig
from egapipe.pipeline.errors import UsageError

# A third of a GPU fits three times.
_ROUNDING = 1e-6


class Node(NamedTuple):
    """Logical resources of a machine of the cluster."""

    cpus: float
    gpus: float


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

    nodes: the cluster's machines. cores: CPU cores of this machine. On `cuda` every GPU gets its
    worker; on CPU there is one, because one forward pass uses all cores better than several do.
    """
    gpus = sum(node.gpus for node in nodes)
    device = settings.device
    if device == "auto":
        device = "cuda" if gpus >= settings.gpus_per_worker else "cpu"
    default = int(gpus / settings.gpus_per_worker + _ROUNDING) if device == "cuda" else 1
    size = settings.max_workers or max(default, settings.min_workers)
    largest = int(max((node.cpus for node in nodes), default=1))
    # A GPU's worker computes on the GPU: it must not wait for CPUs that nobody needs.
    share = 1 if device == "cuda" else max(1, min(cores, largest) // size)
    return Fleet(
        device=device,
        size=size,
        minimum=settings.min_workers,
        cpus=settings.cpus_per_worker or share,
        gpus=settings.gpus_per_worker if device == "cuda" else 0.0,
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


def _room(fleet: Fleet, node: Node) -> int:
    """How many workers a machine can hold."""
    room = node.cpus // fleet.cpus
    return int(min(room, node.gpus / fleet.gpus + _ROUNDING) if fleet.gpus else room)
