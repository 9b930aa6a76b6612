"""Real Ray actors that do little and die as they are told: the pool's view of a worker."""

import os
import signal
import socket
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import ray

from egapipe.pipeline.errors import MachineError, StoreError, TeacherError
from egapipe.pipeline.store import Commit
from egapipe.stages.extract.workers.failures.faults import reported
from egapipe.stages.extract.workers.pool.calls import PULSE, STORE
from egapipe.stages.extract.workers.pool.member import Begun, Encoded, Loaded, Pulse, Where
from egapipe.stages.extract.workers.writer import Writer

FAULTS = {
    "network": ConnectionResetError("the server hung up"),
    "machine": MachineError("row 7 cannot be read: Input/output error (EIO)"),
    "store": StoreError("cannot write there"),
    "device": RuntimeError("CUDA error: uncorrectable ECC error encountered"),
}


def actor(**options: float) -> Any:
    """The class of `Actor` for Ray."""
    groups: Any = {"concurrency_groups": {PULSE: 1, STORE: 1}}
    return ray.remote(**groups)(Actor).options(**options)


def record(shard: int, host: str = "actor") -> Commit:
    return Commit(
        shard=shard,
        start=shard,
        stop=shard + 1,
        sha256={},
        nonfinite=0,
        failures=[],
        seconds={},
        host=host,
    )


def committed(folder: Path, shard: int) -> Commit | None:
    """What a store answers: the record, if the shard's file is there."""
    return record(shard, "store") if (folder / f"shard{shard}").exists() else None


class Actor:
    """Writes a file a shard, and `die<N>-<shard>` files tell it to die at that shard.

    It stores as a real one does: one shard at a time, beside the next one, which it finishes only
    then. `die` kills while a shard is encoded and the one before is stored, `torn` while it is
    stored, before its file is written and after the next one was begun, `late` between its file and
    the answer. Each such file kills once. `stillborn` files kill in `prepare`, and `sleeper` files
    make it last an hour. With a file `open` a worker has to find its batch, which is its process's
    number: `lost` files kill it then, `seeker` make that last an hour, and `short` make it fail.
    `hang<N>-<shard>` makes it stop there for an hour, `mute<N>-<shard>` after
    the shard's file is written, once. While there is a file `gate-<shard>`, all shards from that
    one on wait. `<kind><N>-<shard>`, of FAULTS, makes it raise that, once, and `<kind><N>+<shard>`
    while it stores the shard. `say<N>-<shard>` makes it say something. A shard that it is given
    isolated leaves a file.
    """

    moved = 0
    doing = ""

    def __init__(self) -> None:
        self.writer = Writer()

    def where(self) -> Where:
        return Where(ray.get_runtime_context().get_node_id(), socket.gethostname(), 1)

    def pulse(self) -> Pulse:
        return Pulse(self.moved, self.moved, self.doing)

    def prepare(self, folder: str, slow: float = 0.0) -> Loaded:
        self.folder, self.slow = Path(folder), slow
        self.doing = "loads the teacher"
        self._die_if_told("stillborn*")
        if self._obeys("sleeper*"):
            time.sleep(3600)
        if (self.folder / "refuse").exists():
            raise TeacherError("teacher is not the manifest's: give every host the same")
        return Loaded({"device": "actor"}, None if (self.folder / "open").exists() else 4)

    def begin(self, batch: int | None) -> Begun:
        if batch is None:
            self.doing = "looks"
            self._die_if_told("lost*")
            if self._obeys("seeker*"):
                time.sleep(3600)
            if self._obeys("short*"):
                with reported():
                    raise TeacherError("not even one image fits") from MemoryError()
        (self.folder / f"ready-{os.getpid()}").write_text(str(batch))
        self.doing = "moves"
        # What it finds is its own.
        found = batch or os.getpid()
        return Begun({"device": "actor", "batch": str(found)}, found)

    def encode(self, shard: int, upcoming: int | None, isolated: bool) -> Encoded:
        self.moved += 1
        if isolated:
            assert upcoming is None
            (self.folder / f"isolated{shard}").touch()
        time.sleep(self.slow)
        while any(int(gate.name[5:]) <= shard for gate in self.folder.glob("gate-*")):
            time.sleep(0.05)
        self.writer.wait()
        if self._obeys(f"hang*-{shard}"):
            time.sleep(3600)
        self._die_if_told(f"die*-{shard}")
        if (self.folder / f"bug-{shard}").exists():
            raise ZeroDivisionError("a bug")
        self._fail_if_told("-", shard)
        said = ["memory is short"] if self._obeys(f"say*-{shard}") else []
        self.writer.begin(shard, partial(self._store, shard, self.moved))
        return Encoded(1, {"device": "actor"}, said)

    def written(self, shard: int) -> Commit:
        return self.writer.written(shard)

    def _store(self, shard: int, moved: int) -> Commit:
        """moved: when the shard was encoded."""
        if self._obeys(f"torn*-{shard}"):
            while self.moved == moved:
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGKILL)
        self._fail_if_told("+", shard)
        (self.folder / f"shard{shard}").touch()
        self._die_if_told(f"late*-{shard}")
        if self._obeys(f"mute*-{shard}"):
            time.sleep(3600)
        return record(shard)

    def _fail_if_told(self, when: str, shard: int) -> None:
        for kind, error in FAULTS.items():
            if self._obeys(f"{kind}*{when}{shard}"):
                raise error

    def _die_if_told(self, pattern: str) -> None:
        if self._obeys(pattern):
            os.kill(os.getpid(), signal.SIGKILL)

    def _obeys(self, pattern: str) -> bool:
        """Whether there is an order that no other actor has taken."""
        for order in sorted(self.folder.glob(pattern)):
            with suppress(FileNotFoundError):
                order.unlink()
                return True
        return False
