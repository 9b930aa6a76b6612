"""One process at a time for what lies in an object store, which has no locks.

Whoever holds a place has made the object `lease/<number>`, the highest there, by a put that fails
where there is one (S3: `If-None-Match: *`), and writes to it every BEAT_SECONDS. A lease that is no
longer written to is of a process that was killed: of those that notice, one makes the next number.
The one before, should it live after all, finds that it holds nothing before its next write counts.
"""

import itertools
import json
import logging
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from egapipe.pipeline.disk.files import json_object
from egapipe.pipeline.errors import EgapipeError, InUseError, TrainingError, UsageError
from egapipe.pipeline.machine.repeated import repeated
from egapipe.pipeline.store.objects.base import Objects

FOLDER = "lease"
BEAT_SECONDS = 10.0
PATIENCE_SECONDS = 60.0
_LOOK_SECONDS = 1.0
_log = logging.getLogger(__name__)


class Held(NamedTuple):
    """A lease that somebody holds, or held; it travels to the processes that work for them."""

    number: int
    token: str

    @property
    def key(self) -> str:
        """Of its object."""
        return f"{FOLDER}/{self.number:08d}"


@contextmanager
def leased(
    objects: Objects,
    what: str,
    busy: str = "being trained",
    refusal: type[EgapipeError] = InUseError,
) -> Iterator[Held]:
    """Hold a place for the length of a block. what: that it is held for, busy: what is done with
    it, for messages.

    Where its holder seems to be dead, and is not a process of this machine, that is waited for for
    PATIENCE_SECONDS. Raises `refusal` if another process has it, StoreError.
    """
    held = _take(objects, _Purpose(what, busy, refusal))
    counts = itertools.count(1)
    try:
        with repeated(lambda: _beat(objects, held, next(counts)), BEAT_SECONDS, "lease"):
            yield held
    finally:
        # A store that has gone away meanwhile is explained by whatever needed it.
        with suppress(EgapipeError):
            if is_held(objects, held):
                objects.delete(held.key)


def is_held(objects: Objects, held: Held) -> bool:
    """Whether nobody else has taken a lease over. Raises StoreError."""
    last = _last(objects)
    return last is not None and last[0] == held.number and _token(last[1]) == held.token


def seems_held(objects: Objects, changed: Callable[[str], float]) -> bool:
    """Whether somebody holds a place, as far as can be told without waiting.

    changed: when an object was written to, in seconds since 1970. Raises StoreError.
    """
    last = _last(objects)
    if last is None:
        return False
    record = _record(last[1])
    if record.get("machine") == _machine():
        return _lives(record)
    return time.time() - changed(Held(last[0], "").key) < PATIENCE_SECONDS


def require_held(objects: Objects, held: Held, what: str) -> None:
    """Raise TrainingError if somebody else has taken a lease over."""
    if not is_held(objects, held):
        raise TrainingError(
            f"{what} was taken over by another process, which found this one silent for "
            f"{PATIENCE_SECONDS:.0f} s: nothing more is written to it"
        )


class _Purpose(NamedTuple):
    what: str
    busy: str
    refusal: type[EgapipeError]


def _take(objects: Objects, purpose: _Purpose) -> Held:
    while True:
        last = _last(objects)
        if last is not None and _is_alive(objects, *last, purpose):
            host = _record(last[1]).get("host", "another machine")
            said = f"{purpose.what} is {purpose.busy} by another process, on {host}"
            raise purpose.refusal(said)
        held = Held(1 if last is None else last[0] + 1, uuid.uuid4().hex)
        # Of several that are here at the same moment, one is told that it has written.
        if objects.create(held.key, _content(held, 0)):
            for key in objects.sizes(FOLDER):
                if key < held.key:
                    objects.delete(key)
            return held


def _beat(objects: Objects, held: Held, count: int) -> bool:
    """Whether the lease is still held, as far as is known."""
    # What cannot be written now may be written by the next beat.
    with suppress(EgapipeError):
        if not is_held(objects, held):
            return False
        objects.put(held.key, _content(held, count))
    return True


def _last(objects: Objects) -> tuple[int, bytes] | None:
    """The highest number, and the object's content."""
    for key in sorted(objects.sizes(FOLDER), reverse=True):
        content, name = objects.get(key), key.rpartition("/")[2]
        if content is not None and name.isdecimal():
            return int(name), content
    return None


def _is_alive(objects: Objects, number: int, content: bytes, purpose: _Purpose) -> bool:
    """Whether the holder of a lease lives: known of a process of this machine, and of others if
    they write to it."""
    record = _record(content)
    if record.get("machine") == _machine():
        return _lives(record)
    host = record.get("host", "another machine")
    _log.warning(
        "%s was left by a process on %s, or is %s there: waiting up to %.0f s for a sign of life",
        *(purpose.what, host, purpose.busy, PATIENCE_SECONDS),
    )
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
        last = _last(objects)
        if last is None:
            return False
        if last != (number, content):
            return True
    return False


def _lives(record: Mapping[str, Any]) -> bool:
    """Whether a process of this machine lives."""
    with suppress(psutil.NoSuchProcess, TypeError, ValueError):
        return bool(psutil.Process(record.get("pid")).create_time() == record.get("began"))
    return False


def _content(held: Held, count: int) -> bytes:
    record = {
        **{"token": held.token, "host": socket.gethostname(), "machine": _machine()},
        **{"pid": os.getpid(), "began": psutil.Process().create_time(), "count": count},
    }
    return json.dumps(record).encode()


def _token(content: bytes) -> Any:
    return _record(content).get("token")


def _record(content: bytes) -> dict[str, Any]:
    try:
        return json_object(content, FOLDER)
    except UsageError:
        return {}


def _machine() -> str:
    """Where process numbers mean the same: a start of a machine, and a container of it."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text("utf-8").strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)
