"""One worker of a pool, as the pool sees it."""

import time
from enum import Enum
from typing import Any, NamedTuple

from egapipe.stages.extract.decoding.crew import Watch


class Stage(Enum):
    """How far a worker has come."""

    PLACING = "waits for its machine"
    LOADING = "loads the teacher"
    READY = "can be given shards"


class Where(NamedTuple):
    """Where an actor has landed. machine: Ray's name of it. cores: that its process may use."""

    machine: str
    host: str
    cores: int


class Member:
    """One actor. It is given shards only after it has reported to be ready."""

    def __init__(self, handle: Any, asked: str | None) -> None:
        """asked: the machine it is meant for, None: whichever has room."""
        self.handle = handle
        self.stage = Stage.PLACING
        self.machine = asked
        self.host = ""
        self.isolated = False
        self.relieved = False
        """Whether it was killed because it was slow."""
        self.ended: str | None = None
        """Why the pool has killed it, where that counts as a failure."""
        self.asked_pulse = 0.0
        self._pulse: Any = None
        self._watch = Watch()
        self._began = time.monotonic()

    @property
    def ready(self) -> bool:
        """Whether it can be given shards, or has one."""
        return self.stage is Stage.READY

    @property
    def dying(self) -> bool:
        """Whether it was killed, and Ray has not said so yet."""
        return self.relieved or self.ended is not None

    @property
    def seconds(self) -> float:
        """Since it was given its shard, or came to its stage."""
        return time.monotonic() - self._began

    def begin(self) -> None:
        """It is given something to do."""
        self._began = time.monotonic()
        self._pulse = None
        self._watch = Watch()

    def beats(self, pulse: Any) -> None:
        """It has told how far it is."""
        self._pulse = pulse

    @property
    def still(self) -> float:
        """Seconds since it was seen to come further."""
        return self._watch.seconds(self._pulse)
