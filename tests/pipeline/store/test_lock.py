"""One extraction at a time: the second is refused in one line, and a dead one refuses nobody."""

import multiprocessing
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.store import FeatureStore
from tests.pipeline.store.samples import complete, create, snapshot

FORK = multiprocessing.get_context("fork")


def hold(store: FeatureStore, connection: Connection) -> None:
    """Hold the lock until told to let go."""
    with store.exclusive():
        connection.send("held")
        connection.recv()


def test_a_second_process_is_refused_until_the_first_is_gone_however_it_goes(
    tmp_path: Path,
) -> None:
    store = create(str(tmp_path / "s"))
    for end in ("released", "killed"):
        ours, theirs = FORK.Pipe()
        holder = FORK.Process(target=hold, args=(store, theirs))
        holder.start()
        assert ours.poll(60)
        with pytest.raises(StoreError) as refused, FeatureStore.open(store.url).exclusive():
            pass
        assert str(refused.value).startswith(f"another process extracts into {store.url} now: wait")
        assert "\n" not in str(refused.value)
        holder.kill() if end == "killed" else ours.send("let go")
        holder.join()
        assert not holder.is_alive()
        with store.exclusive():
            pass


def test_who_writes_shards_needs_no_lock_and_the_lock_leaves_nothing(tmp_path: Path) -> None:
    store, other = create(str(tmp_path / "s")), create(str(tmp_path / "other"))
    with store.exclusive(), other.exclusive():
        complete(FeatureStore.open(store.url))
    assert snapshot(store) == snapshot(complete(other))


def test_what_goes_wrong_inside_is_not_hidden(tmp_path: Path) -> None:
    store = create(str(tmp_path / "s"))
    with pytest.raises(ZeroDivisionError), store.exclusive():
        raise ZeroDivisionError
    with store.exclusive():
        pass


def test_a_store_that_was_removed_is_explained(tmp_path: Path) -> None:
    store = create(str(tmp_path / "s"))
    (tmp_path / "s/commits/created.json").unlink()
    with pytest.raises(StoreError, match=r"cannot write .*created\.json: No such file"):
        store.exclusive().__enter__()


def test_an_object_store_has_no_lock(memory: str) -> None:
    store = create(memory)
    with store.exclusive(), store.exclusive():
        complete(store)
    assert store.complete


WITHOUT = """
import sys
sys.modules["fcntl"] = None
from egapipe.pipeline.cli import main
from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.store import FeatureStore
try:
    with FeatureStore.open(sys.argv[-1]).exclusive():
        print("locked")
except StoreError as error:
    print(error)
main()
"""


def test_a_system_without_locks_reads_stores_and_makes_none(tmp_path: Path) -> None:
    """In a fresh interpreter: in this one the module is imported."""
    url = create(str(tmp_path / "s")).url
    command = [sys.executable, "-P", "-c", WITHOUT, "store", "check", url]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert (done.returncode, done.stderr) == (0, "")
    refused, checked = done.stdout.splitlines()
    assert refused.endswith("extract on Linux or macOS, on Windows in WSL")
    assert checked.startswith(f"{url}: unfinished")
