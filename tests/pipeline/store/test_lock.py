"""One extraction at a time: the second is refused in one line, and a dead one refuses nobody."""

import itertools
import multiprocessing
import subprocess
import sys
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.queues import Queue
from pathlib import Path

import pytest

from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.store import FeatureStore, check_store
from tests.objectstore import S3, s3, s3_server
from tests.pipeline.store.samples import complete, create, snapshot

__all__ = ["s3", "s3_server"]

FORK = multiprocessing.get_context("fork")
# The clients' threads do not survive a fork.
SPAWN = multiprocessing.get_context("spawn")


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


def test_an_object_store_has_a_lease_beside_it(s3: S3) -> None:
    """Taken by a put on condition that there is none: of two processes one is told so."""
    store = create(s3.url())
    for end in ("released", "killed"):
        ours, theirs = SPAWN.Pipe()
        holder = SPAWN.Process(target=hold, args=(store, theirs))
        holder.start()
        assert ours.poll(120)
        with pytest.raises(StoreError) as refused, FeatureStore.open(store.url).exclusive():
            pass
        said = str(refused.value)
        assert said.startswith(f"store {store.url} is being extracted by another process, on ")
        assert "\n" not in said
        holder.kill() if end == "killed" else ours.send("let go")
        holder.join()
    # Whoever was killed on this machine holds nothing, and nothing stays.
    with store.exclusive():
        complete(store)
    assert store.complete
    assert check_store(store.url).problems == []
    assert not [key for key in s3.objects() if ".lease" in key]


def take_often(url: str, results: "Queue[tuple[float, float]]") -> None:
    store, taken = FeatureStore.open(url), 0
    while taken < 5:
        with suppress(StoreError), store.exclusive():
            began = time.time()
            time.sleep(0.02)
            results.put((began, time.time()))
            taken += 1


def test_two_processes_never_hold_an_object_store_at_once(s3: S3) -> None:
    store = create(s3.url())
    results = SPAWN.Queue()
    takers = [SPAWN.Process(target=take_often, args=(store.url, results)) for _ in range(2)]
    for taker in takers:
        taker.start()
    held = sorted(results.get(timeout=240) for _ in range(10))
    for taker in takers:
        taker.join()
        assert taker.exitcode == 0
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(held))


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
