"""One worker of a pool, as the pool sees it."""

import time
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

from egapipe.stages.extract.decoding.crew import Watch


class Stage(Enum):
    """How far a worker has come."""

    PLACING = "waits for its machine"
    LOADING = "loads the teacher"
    READY = "waits for a shard"


class Where(NamedTuple):
    """Where an actor has landed. machine: Ray's name of it. cores: that its process may use."""

    machine: str
    host: str
    cores: int


class Loaded(NamedTuple):
    """What a worker says once it has its teacher. kind: what it computes on, see `kind_of`. batch:
    views in one pass, where that is settled."""

    kind: Mapping[str, str]
    batch: int | None


class Begun(NamedTuple):
    """What a worker says once it can encode. computed: on what, see `Commit`. batch: views in one
    pass."""

    computed: Mapping[str, str]
    batch: int


class Pulse(NamedTuple):
    """What a worker says while it works.

    point: a number that grows as it comes further. views: that it has encoded so far. doing: what
    it does at the moment, in words.
    """

    point: int
    views: int
    doing: str


class Encoded(NamedTuple):
    """What a worker answers to a shard that is encoded, and not stored yet. notes: for the user.
    computed: on what, see `Commit`."""

    views: int
    computed: Mapping[str, str]
    notes: Sequence[str] = ()


class Member:
    """One actor. It is given shards only after it has reported to be ready."""

    def __init__(self, handle: Any, asked: str | None) -> None:
        """asked: the machine it is meant for, None: whichever has room."""
        self.handle = handle
        self.stage = Stage.PLACING
        self.machine = asked
        self.host = ""
        self.computed: Mapping[str, str] = {}
        """What it computes on, see `Commit`, once it is ready."""
        self.shard: int | None = None
        """The one it encodes."""
        self.rate = 0.0
        """Views a second, of its last shard."""
        self.isolated = False
        self.relieved = False
        """Whether it was killed because it was slow."""
        self.ended: str | None = None
        """Why the pool has killed it, where that counts as a failure."""
        self.asked_pulse = 0.0
        self.pulse: Pulse | None = None
        self._watch = Watch()
        self._began = time.monotonic()

    def encoded(self, answer: Encoded) -> Sequence[str]:
        """It has encoded its shard. Returns what it has to say."""
        self.rate = answer.views / max(self.seconds, 1e-9)
        self.computed = answer.computed
        self.shard = None
        return answer.notes

    @property
    def doing(self) -> str:
        """What it does at the moment, in words, as far as it has said."""
        said = "" if self.pulse is None else self.pulse.doing
        return said or self.stage.value

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
        self.pulse = None
        self._watch = Watch()

    @property
    def still(self) -> float:
        """Seconds since it was seen to come further."""
        return self._watch.seconds(None if self.pulse is None else self.pulse.point)
