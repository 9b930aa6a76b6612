"""Turns at a lock file: whoever waits names the process that it waits for."""

import multiprocessing
import os
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from egapipe.pipeline.disk import turns

FORK = multiprocessing.get_context("fork")


def hold(lock: Path, held: Event, leave: Event) -> None:
    with turns.turn(lock, "it"):
        held.set()
        leave.wait(60)


@pytest.mark.skipif(not turns._LOCKS.exists(), reason="this system does not tell who has a lock")
def test_a_waiting_process_says_for_whom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(turns, "_SILENT_SECONDS", 0.05)
    lock, held, leave = tmp_path / "lock", FORK.Event(), FORK.Event()
    holder = FORK.Process(target=hold, args=(lock, held, leave))
    holder.start()
    assert held.wait(60)

    def release(*_: object) -> None:
        leave.set()

    caplog.handler.addFilter(lambda record: release() is None)
    with turns.turn(lock, "copies /there"):
        assert caplog.messages == [f"waiting for process {holder.pid}, which makes copies /there"]
    holder.join()
    assert holder.exitcode == 0


def test_where_nobody_tells_it_is_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "_LOCKS", tmp_path / "none")
    (tmp_path / "lock").touch()
    assert turns._holder(tmp_path / "lock") == "another process"


def test_a_lock_that_is_free_is_taken_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        with turns.turn(tmp_path / "lock", "it"):
            assert os.path.exists(tmp_path / "lock")
    assert not caplog.messages
