"""One of several processes holds a place in an object store; one that was killed holds nothing."""

import json
import multiprocessing
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from egapipe.pipeline.errors import TrainingError
from egapipe.pipeline.locations import lease
from egapipe.pipeline.locations.lease import Held, is_held, leased, require_held
from egapipe.pipeline.store.objects.remote import RemoteObjects
from tests.objectstore import S3, s3, s3_server

__all__ = ["s3", "s3_server"]


@pytest.fixture
def objects(s3: S3, monkeypatch: pytest.MonkeyPatch) -> RemoteObjects:
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(lease, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(lease, "_LOOK_SECONDS", 0.05)
    return RemoteObjects(s3.url("run"))


def elsewhere(objects: RemoteObjects, held: Held) -> None:
    """Make a lease look as if a process of another machine had made it."""
    record = json.loads(objects.get(held.key) or b"")
    objects.put(held.key, json.dumps({**record, "machine": "other", "host": "other"}).encode())


def left_behind(objects: RemoteObjects, token: str = "gone") -> Held:  # noqa: S107
    """The lease of a process of another machine, which was killed."""
    held = Held(7, token)
    objects.put(held.key, lease._content(held, 3))
    elsewhere(objects, held)
    return held


def test_the_second_is_refused_and_the_first_leaves_nothing(objects: RemoteObjects) -> None:
    with leased(objects, "run x") as held:
        require_held(objects, held, "run x")
        refused = pytest.raises(TrainingError, match="run x is being trained by another process")
        with refused, leased(objects, "run x"):
            raise AssertionError
        assert is_held(objects, held)
    assert objects.sizes() == {}


def test_a_living_process_of_another_machine_is_not_taken_over(
    objects: RemoteObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    with leased(objects, "run x") as held:
        # This machine is another one from here on.
        monkeypatch.setattr(lease, "_machine", lambda: "other")
        with pytest.raises(TrainingError), leased(objects, "run x"):
            raise AssertionError
        assert is_held(objects, held)


def test_a_dead_one_is_taken_over(objects: RemoteObjects) -> None:
    dead = left_behind(objects)
    with leased(objects, "run x") as held:
        assert held.number == dead.number + 1
        assert not is_held(objects, dead)
        with pytest.raises(TrainingError, match="run x was taken over by another process"):
            require_held(objects, dead, "run x")


def test_two_never_hold_it_at_once(objects: RemoteObjects) -> None:
    left_behind(objects)
    holding: list[str] = []
    worst: list[int] = []

    def attempt(_: int) -> None:
        try:
            with leased(objects, "run x") as held:
                holding.append(held.token)
                worst.append(len(holding))
                require_held(objects, held, "run x")
                holding.remove(held.token)
        except TrainingError:
            return

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(attempt, range(8)))
    assert max(worst) == 1


def _hold(url: str, ready: Any) -> None:
    with leased(RemoteObjects(url), "run x"):
        ready.set()
        signal.pause()


def test_a_killed_process_of_this_machine_is_known_to_be_dead(
    objects: RemoteObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=_hold, args=(objects.url, ready))
    process.start()
    assert ready.wait(60)
    with pytest.raises(TrainingError, match="another process"), leased(objects, "run x"):
        raise AssertionError
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    # Nobody is waited for.
    monkeypatch.setattr(lease, "PATIENCE_SECONDS", 1e9)
    with leased(objects, "run x") as held:
        assert held.number == 2


def test_a_damaged_lease_is_of_nobody(objects: RemoteObjects) -> None:
    for content in (b"", b"{", b"[]", b'{"machine": 1, "pid": {}}'):
        objects.put("lease/00000001", content)
        with leased(objects, "run x") as held:
            assert is_held(objects, held)


def test_the_machine_is_told_apart() -> None:
    assert lease._machine() == lease._machine()
    assert len(lease._machine().split()) == (3 if Path("/proc/self/ns/pid").exists() else 1)
