"""Shards that are stored beside the next one: one at a time, and each with its own fate."""

import threading
from contextlib import closing
from pathlib import Path

import pytest

from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.store import Commit, FeatureStore, check_store
from egapipe.stages.extract.workers.writer import Writer
from tests.pipeline.store.kill import killed_before
from tests.pipeline.store.samples import create, finished, make_manifest, snapshot, write

SMALL = make_manifest(rows=7, shard_rows=3, outputs={"embedding": (3,)})


def overlapped(store: FeatureStore) -> None:
    """As a worker does it: the record of a shard is asked for when the next one is encoded."""
    with closing(Writer()) as writer:
        before: int | None = None
        for shard in store.pending():
            writer.begin(shard, lambda shard=shard: write(store, shard))
            if before is not None:
                writer.written(before)
            before = shard
        if before is not None:
            writer.written(before)
    store.finish()


@pytest.mark.parametrize("stride", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_killed_at_any_step_it_ends_byte_identical(tmp_path: Path, stride: int) -> None:
    undisturbed = snapshot(finished(str(tmp_path / "undisturbed"), SMALL))
    step, killed = 0, True
    while killed:
        url = str(tmp_path / f"{step}")
        store = create(url, SMALL)
        killed = killed_before(step, lambda store=store: overlapped(store))
        assert check_store(url).problems == []
        overlapped(FeatureStore.open(url))
        assert snapshot(FeatureStore.open(url)) == undisturbed
        step += stride
    # Two folders, a file and a name for each chunk, and so for each record; then those of the end.
    assert step > 15


def test_one_shard_is_stored_at_a_time_and_in_order(tmp_path: Path) -> None:
    store = create(str(tmp_path), SMALL)
    there, order = threading.Semaphore(1), list[int]()

    def alone(shard: int) -> Commit:
        assert there.acquire(blocking=False)
        order.append(shard)
        commit = write(store, shard)
        there.release()
        return commit

    with closing(Writer()) as writer:
        for shard in (2, 0, 1):
            writer.begin(shard, lambda shard=shard: alone(shard))
        assert [writer.written(shard).shard for shard in (0, 1, 2)] == [0, 1, 2]
    assert order == [2, 0, 1]


def test_what_goes_wrong_is_raised_for_its_own_shard(tmp_path: Path) -> None:
    store = create(str(tmp_path), SMALL)

    def full() -> Commit:
        raise StoreError("no space left")

    with closing(Writer()) as writer:
        writer.begin(0, full)
        writer.begin(1, lambda: write(store, 1))
        assert writer.written(1).shard == 1
        with pytest.raises(StoreError, match="no space left"):
            writer.written(0)
        # And may be tried again.
        writer.begin(0, lambda: write(store, 0))
        assert writer.written(0).shard == 0


def test_closing_waits_for_what_is_being_stored(tmp_path: Path) -> None:
    store, go = create(str(tmp_path), SMALL), threading.Event()

    def slow() -> Commit:
        go.wait()
        return write(store, 1)

    with closing(Writer()) as writer:
        writer.begin(1, slow)
        go.set()
    assert list(store.commits()) == [1]
