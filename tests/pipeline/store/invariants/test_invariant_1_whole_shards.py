"""Invariant 1: one writer per shard; writes are whole shards."""

import multiprocessing
from pathlib import Path

import pytest

from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.store import Failure, FeatureStore, check_store
from egapipe.pipeline.store.objects.local import LocalObjects
from tests.pipeline.store.samples import (
    create,
    finished,
    make_arrays,
    snapshot,
    write,
)

FORK = multiprocessing.get_context("fork")


@pytest.mark.parametrize("rows", [3, 5])
def test_only_whole_shards_are_written(url: str, rows: int) -> None:
    store = create(url)
    arrays = make_arrays(store.manifest, range(rows))
    with pytest.raises(ValueError, match=r"embedding is float32 .* not float32 \(4, 2, 3\)"):
        store.write_shard(0, arrays)
    assert not any("/c/" in key for key in store.objects.sizes())


@pytest.mark.parametrize("shard", [-1, 3])
def test_no_write_leaves_the_plan(url: str, shard: int) -> None:
    store = finished(url)
    before = snapshot(store)
    with pytest.raises(IndexError, match=rf"shard {shard} is not in 0\.\.2"):
        store.write_shard(shard, make_arrays(store.manifest, store.shards[2]))
    assert snapshot(store) == before


def test_arrays_and_failures_must_be_of_the_shard(memory: str) -> None:
    store = create(memory)
    arrays = make_arrays(store.manifest, range(4))
    wrong = {
        "arrays are": ({"embedding": arrays["embedding"]}, []),
        "float64": ({**arrays, "logits": arrays["logits"].astype(float)}, []),
        "different rows": (arrays, [Failure(4, "train/4", "no image")]),
        "keys of their rows": (arrays, [Failure(0, "train/1", "no image")]),
    }
    for said, (values, failures) in wrong.items():
        with pytest.raises(ValueError, match=said):
            store.write_shard(0, values, failures=failures)
    assert store.commits() == {}


def test_different_shards_may_be_written_by_different_processes(tmp_path: Path) -> None:
    alone = finished(str(tmp_path / "alone"))
    store = create(str(tmp_path / "together"))
    workers = [FORK.Process(target=write, args=(store, shard)) for shard in (2, 0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert store.pending() == []
    store.finish()
    assert snapshot(store) == snapshot(alone)


def test_two_runs_at_once_waste_time_and_lose_nothing(tmp_path: Path) -> None:
    alone = finished(str(tmp_path / "alone"))
    url = str(tmp_path / "twice")
    runs = [FORK.Process(target=finished, args=(url,)) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    # One may fail over the other's last object; whatever is there is whole.
    assert [p for p in check_store(url).problems if "does not belong" not in p] == []
    assert snapshot(finished(url)) == snapshot(alone)


def test_a_committed_shard_is_never_written_again(url: str) -> None:
    store = create(url)
    first = write(store, 0)
    before = snapshot(store)
    arrays = make_arrays(store.manifest, range(4, 8))
    assert FeatureStore.open(url).write_shard(0, arrays) == first
    assert snapshot(store) == before


class Overtaken(LocalObjects):
    """Another run writes the same shard, and ends, between a write of a shard and its record."""

    def put(self, key: str, data: bytes) -> None:
        super().put(key, data)
        if "/c/" in key:
            finished(self.url)


def test_a_record_that_another_run_has_put_stays(tmp_path: Path) -> None:
    honest = create(str(tmp_path))
    store = FeatureStore(Overtaken(honest.url), honest.manifest, honest.created)
    second = write(store, 1)
    assert second == honest.commits()[1]
    store.finish()
    assert check_store(honest.url).problems == []


class SecondWriter(LocalObjects):
    """Somebody else writes the same shard between a write and its verification."""

    def put(self, key: str, data: bytes) -> None:
        super().put(key, data)
        if "/c/" in key:
            super().put(key, b"other bytes")


def test_a_second_writer_is_noticed_and_nothing_is_committed(tmp_path: Path) -> None:
    honest = create(str(tmp_path))
    store = FeatureStore(SecondWriter(honest.url), honest.manifest, honest.created)
    with pytest.raises(StoreError, match="does another process write this shard"):
        write(store, 1)
    assert honest.commits() == {}
    write(honest, 1)
    assert check_store(honest.url).ok
