"""How many workers each machine gets and what they take: a pure function of settings and machines.

A worker computes on one GPU, or a share of one; on CPU it takes its machine's cores.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from egapipe.pipeline.config.extract import ExtractConfig
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.machine.cluster import Node

# A third of a GPU fits three times.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Fleet:
    """The workers of a run, alike but for the CPUs of their machines."""

    device: str
    """cpu or cuda."""
    minimum: int
    """Workers to start with."""
    most: int | None
    """Workers at most; None: as many as the machines hold, also those that come later."""
    share: float
    """GPUs a worker takes."""
    asked_cpus: int | None
    """CPUs a worker takes, where the configuration says so."""
    a_machine: int
    """Workers that a machine gets on CPU."""
    usual_cpus: int
    """CPUs of a worker whose machine is not known yet."""
    size: int
    """Workers, as far as the machines of the start go."""

    @property
    def gpus(self) -> float:
        """GPUs a worker takes, none on CPU."""
        return self.share if self.device == "cuda" else 0.0

    @property
    def resources(self) -> str:
        """What one worker takes, in words."""
        return f"{self.usual_cpus} CPU" + (f" and {self.gpus:g} GPU" if self.gpus else "")

    def cpus_on(self, node: Node) -> int:
        """CPUs of a worker on a machine."""
        if self.asked_cpus is not None or self.device == "cuda":
            # A GPU's worker computes on the GPU: it must not wait for CPUs that nobody needs.
            return self.asked_cpus or 1
        return max(1, int(node.cpus) // self.a_machine)

    def places(self, node: Node) -> int:
        """Workers that a machine is to have."""
        room = int(node.cpus // self.cpus_on(node))
        return min(room, _places(node.gpus, self.gpus) if self.gpus else self.a_machine)

    def share_on(self, node: Node | None) -> float:
        """The part of a machine that is one worker's: of its memory, and of cores to decode on."""
        return 1.0 if node is None else 1 / max(1, self.places(node))

    def cores_on(self, node: Node | None, there: int) -> int:
        """Cores for a CPU teacher, of so many that its process may use there.

        Ray's CPUs are a number that its user chose: there may be fewer. Workers of one machine
        share what there is.
        """
        if node is None or not node.cpus:
            return max(1, min(self.usual_cpus, there))
        taken = self.cpus_on(node)
        return max(1, min(taken, int(there * min(1.0, taken / node.cpus))))


def plan_fleet(
    settings: ExtractConfig, nodes: Sequence[Node], promised: Mapping[str, float] | None = None
) -> Fleet:
    """The workers of a run.

    nodes: the cluster's machines. promised: resources that its autoscaler may bring, by Ray's
    names. On `cuda` every GPU, or every share of one, gets its worker. On CPU every machine gets
    one: its teacher's passes run side by side on all cores, and several workers would hold as many
    teachers. Raises UsageError where one worker is to take several GPUs.
    """
    if settings.gpus_per_worker > 1 and settings.device != "cpu":
        raise UsageError(
            f"extract.gpus_per_worker is {settings.gpus_per_worker:g}, but a worker computes on "
            "one GPU and the others would idle: set it to 1, or to a share of one; every GPU gets "
            "its worker"
        )
    device = settings.device
    if device == "auto":
        gpus = sum(node.gpus for node in nodes) + (promised or {}).get("GPU", 0)
        device = "cuda" if gpus >= settings.gpus_per_worker else "cpu"
    share = settings.gpus_per_worker
    machines = [node for node in nodes if node.cpus >= 1]
    places = sum(_places(node.gpus, share) for node in nodes)
    default = places if device == "cuda" else max(1, len(machines))
    size = settings.max_workers or max(default, settings.min_workers)
    a_machine = max(1, math.ceil(size / max(1, len(machines))))
    # The smallest machine is to have room for its worker too.
    smallest = int(min((node.cpus for node in machines), default=1))
    usual = 1 if device == "cuda" else max(1, smallest // a_machine)
    return Fleet(
        device=device,
        minimum=settings.min_workers,
        most=settings.max_workers,
        share=share,
        asked_cpus=settings.cpus_per_worker,
        a_machine=a_machine,
        usual_cpus=settings.cpus_per_worker or usual,
        size=size,
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


def spread(lacking: Mapping[str, int], there: Mapping[str, int]) -> list[str]:
    """The machines that workers are started on, one entry a worker, the emptiest first.

    lacking, there: machine -> workers that it is still to get, and has. Fewer workers than all then
    lie on as many machines as possible.
    """
    rounds = [
        (there.get(name, 0) + number, name)
        for name, count in lacking.items()
        for number in range(count)
    ]
    return [name for _, name in sorted(rounds)]


def _room(fleet: Fleet, node: Node) -> int:
    """How many workers a machine can hold."""
    room = int(node.cpus // fleet.usual_cpus)
    return min(room, _places(node.gpus, fleet.gpus)) if fleet.gpus else room


def _places(gpus: float, share: float) -> int:
    """Workers that a machine's GPUs can hold. A share is one of a single GPU."""
    if share < 1:
        return int(gpus) * int(1 / share + _ROUNDING)
    return int(gpus / share)
