"""Two writers of one shard in an object store, in every order of their requests."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import combinations

import numpy as np
import pytest

from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.store import FeatureStore
from egapipe.pipeline.store.objects.remote import RemoteObjects
from tests.objectstore import S3, s3, s3_server
from tests.pipeline.store.samples import Arrays, create, make_arrays, make_manifest

__all__ = ["s3", "s3_server"]

SMALL = make_manifest(outputs={"embedding": (3,)}, dtype="float32", shard_rows=5)
# Is there a record? Put the data, read it back, put the record.
REQUESTS = 4
ORDERS = [
    "".join("a" if step in chosen else "b" for step in range(2 * REQUESTS))
    for chosen in combinations(range(2 * REQUESTS), REQUESTS)
    # The other half is the same with the names exchanged.
    if 0 in chosen
]


class Turns:
    """Lets two threads go on in a given order, one request at a time."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.changed = threading.Condition()

    @contextmanager
    def turn(self, name: str) -> Iterator[None]:
        with self.changed:
            self.changed.wait_for(lambda: not self.order or self.order[0] == name)
            mine = bool(self.order)
        try:
            yield
        finally:
            with self.changed:
                if mine:
                    self.order.pop(0)
                self.changed.notify_all()

    def leave(self, name: str) -> None:
        """A thread has ended, perhaps early."""
        with self.changed:
            self.order = [other for other in self.order if other != name]
            self.changed.notify_all()


class InTurns(RemoteObjects):
    """Objects of one of two writers."""

    def __init__(self, url: str, name: str, turns: Turns) -> None:
        super().__init__(url)
        self.name, self.turns = name, turns

    @contextmanager
    def explained(self, doing: str, key: str) -> Iterator[None]:
        with self.turns.turn(self.name), super().explained(doing, key):
            yield


class Writer:
    """A process that was given shard 0, as far as the store can tell."""

    def __init__(self, store: FeatureStore, name: str, turns: Turns, arrays: Arrays) -> None:
        objects = InTurns(store.url, name, turns)
        self.store = FeatureStore(objects, store.manifest, store.created)
        self.name, self.turns, self.arrays = name, turns, arrays
        self.error: Exception | None = None

    def write(self) -> None:
        self.error = None
        try:
            self.store.write_shard(0, self.arrays)
        except StoreError as error:
            self.error = error
        finally:
            self.turns.leave(self.name)


@pytest.fixture
def race(s3: S3) -> Callable[[Arrays, Arrays, str], list[Writer]]:
    """Have two writers write shard 0 in an order of their requests; both have ended then."""
    store, turns = create(s3.url(), SMALL), Turns()
    writers: dict[str, Writer] = {}

    def run(first: Arrays, second: Arrays, order: str) -> list[Writer]:
        if not writers:
            for name, arrays in (("a", first), ("b", second)):
                writers[name] = Writer(store, name, turns, arrays)
                # Zarr's arrays are opened by the first write: here by one of the other shard.
                store.objects.delete("commits/000001.json")
                writers[name].store.write_shard(1, make_arrays(SMALL, store.shards[1]))
        store.objects.delete("commits/000000.json")
        turns.order = list(order)
        threads = [threading.Thread(target=writer.write) for writer in writers.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return list(writers.values())

    return run


def test_writers_of_the_same_numbers_never_disturb_each_other(
    s3: S3, race: Callable[[Arrays, Arrays, str], list[Writer]]
) -> None:
    """Two extractions of one configuration: on equal devices their bytes are the same."""
    arrays = make_arrays(SMALL, range(5))
    for order in ORDERS[::4]:
        assert [writer.error for writer in race(arrays, arrays, order)] == [None, None]
        read = FeatureStore.open(s3.url()).read_shard(0)
        np.testing.assert_array_equal(read, arrays["embedding"])


@pytest.mark.slow
def test_no_order_makes_a_shard_of_two_writers(
    s3: S3, race: Callable[[Arrays, Arrays, str], list[Writer]]
) -> None:
    """What can be read is one writer's, all of it; else the checksum says what to delete."""
    mine = make_arrays(SMALL, range(5))
    theirs = {name: array + 1 for name, array in mine.items()}
    shards = [array["embedding"].tobytes() for array in (mine, theirs)]
    seen = set()
    for order in ORDERS:
        writers = race(mine, theirs, order)
        store = FeatureStore.open(s3.url())
        assert s3.objects()["train.zarr/embedding/c/0/0/0"] in shards
        try:
            read = store.read_shard(0).tobytes()
            assert read in shards
            seen.add("read")
        except StoreError as error:
            assert "delete commits/000000.json there" in str(error)  # noqa: PT017
            seen.add("refused")
        for writer in writers:
            assert writer.error is None or "does another process write" in str(writer.error)
    assert seen == {"read", "refused"}
