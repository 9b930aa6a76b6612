"""What a trial takes and how many run at once: a pure function of settings and machines."""

from collections.abc import Sequence
from dataclasses import dataclass

from egapipe.pipeline.config import Config
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.machine.cluster import Node

# A third of a GPU fits three times.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Slots:
    """Trials alike."""

    device: str
    """cpu or cuda."""
    cpus: int
    """CPUs of the process that runs a trial."""
    gpus: float
    """GPUs of that process; with `workers` they have their own."""
    workers: int
    """Ray Train workers that it starts, each with one CPU and on cuda one GPU; 0: it trains
    itself."""
    concurrent: int
    """Trials at once."""

    @property
    def resources(self) -> str:
        """What one trial takes in all, in words."""
        gpus = self.gpus or (self.workers if self.device == "cuda" else 0)
        return f"{self.cpus + self.workers} CPU" + (f" and {gpus:g} GPU" if gpus else "")


def plan_slots(config: Config, nodes: Sequence[Node], most: int | None = None) -> Slots:
    """The slots of cells that run together. most: at once; None: as many as there is room for.

    A trial of at most one worker trains in its own process. Larger ones nest Ray Train, whose
    workers take resources beside the trial's own: more trials at once than fit with all their
    workers would wait for each other for ever. Raises UsageError if there is no room for one trial.
    """
    sweep, distill = config.sweep, config.distill
    total = Node(sum(node.cpus for node in nodes), sum(node.gpus for node in nodes))
    workers = distill.workers if distill.workers > 1 else 0
    needed = float(workers or min(1.0, sweep.gpus_per_trial))
    device = distill.device
    if device == "auto":
        device = "cuda" if total.gpus >= needed - _ROUNDING else "cpu"
    cpus = 1 if workers else sweep.cpus_per_trial or distill.threads or 1
    gpus = sweep.gpus_per_trial if device == "cuda" and not workers else 0.0
    if workers:
        room = _room(total, cpus + workers, workers if device == "cuda" else 0)
    else:
        room = sum(_room(node, cpus, gpus) for node in nodes)
    slots = Slots(device, cpus, gpus, workers, min(room, most or room))
    if room < 1:
        raise UsageError(_no_room(slots, nodes))
    return slots


def _room(node: Node, cpus: float, gpus: float) -> int:
    """How many trials these resources hold."""
    room = node.cpus // cpus
    return int(min(room, node.gpus / gpus + _ROUNDING) if gpus else room)


def _no_room(slots: Slots, nodes: Sequence[Node]) -> str:
    there = "; ".join(f"{node.cpus:g} CPU and {node.gpus:g} GPU" for node in nodes)
    return (
        f"a trial needs {slots.resources}, but Ray's machines have {there}: lower distill.workers, "
        "sweep.cpus_per_trial or sweep.gpus_per_trial, or raise cluster.cpus, the logical CPUs"
    )
