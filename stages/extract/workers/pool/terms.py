"""How many workers a run has, where, and what is tried before it is given up."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Terms:
    """How many workers there are, and what is tried before the run is given up."""

    minimum: int
    """Workers that must be ready before the first shard is handed out."""
    most: int | None
    """Workers at most; None: as many as the machines are to have."""
    max_restarts: int
    """Times one shard may fail or lose its worker."""
    resources: str
    """What one worker asks for, for messages."""
    wait: float = 300.0
    """Seconds until the minimum must have its machines, and that the run may be without any later;
    infinite: for ever."""
    start_timeout: float = 1800.0
    """Seconds that a worker may take to load the teacher."""
    stall_timeout: float = 1800.0
    """Seconds that a busy worker may go without finishing a batch."""
    machine_failures: int = 3
    """Workers that a machine may fail before it is left out."""
    patience: float = 10.0
    """Seconds that no shard is too slow for."""


class Ground(NamedTuple):
    """The machines there are. places: machine -> workers that it is to have. leaving: machines
    that go soon, and get nothing more to do."""

    places: Mapping[str, int]
    leaving: frozenset[str] = frozenset()


def nowhere_special() -> Ground:
    """Workers are started wherever Ray has room."""
    return Ground({})
