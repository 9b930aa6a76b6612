"""Invariant 2: a shard counts when its record exists, with a checksum of the stored bytes."""

import uuid
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.store import Commit, Failure, FeatureStore, check_store
from egapipe.pipeline.store.format import layout
from egapipe.pipeline.store.objects.local import LocalObjects
from egapipe.pipeline.store.objects.location import open_objects
from egapipe.pipeline.store.records.record import Finished
from tests.pipeline.store.samples import (
    complete,
    create,
    finished,
    make_arrays,
    snapshot,
    write,
)


def test_a_chunk_without_record_does_not_count(url: str) -> None:
    store = create(url)
    key = layout.chunk_key(store.manifest, "embedding", 1)
    store.objects.put(key, bytes(layout.chunk_bytes(store.manifest, "embedding")))
    assert store.pending() == [0, 1, 2]
    with pytest.raises(StoreError, match="has no shard 1 yet: run `egapipe extract`"):
        store.read_shard(1)


class Recording(LocalObjects):
    """Tells in which order objects are written, flushed and read."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.done: list[tuple[str, str]] = []

    def get(self, key: str) -> bytes | None:
        self.done.append(("read", key))
        return super().get(key)

    def put(self, key: str, data: bytes) -> None:
        self.done.append(("put", key))
        super().put(key, data)

    def create(self, key: str, data: bytes) -> bool:
        self.done.append(("create", key))
        return super().create(key, data)


def test_the_record_comes_after_the_data_and_vouches_for_the_stored_bytes(tmp_path: Path) -> None:
    plain = create(str(tmp_path))
    objects = Recording(plain.url)
    commit = write(FeatureStore(objects, plain.manifest, plain.created), 1)
    chunks = ["embedding/c/1/0/0", "logits/c/1/0/0"]
    order = [(done, key) for done, key in objects.done if key in (*chunks, "commits/000001.json")]
    read_back = [(done, key) for key in chunks for done in ("put", "read")]
    assert order == [("read", "commits/000001.json"), *read_back, ("create", "commits/000001.json")]
    stored = {key.partition("/")[0]: (tmp_path / key).read_bytes() for key in chunks}
    assert commit.sha256 == {name: sha256(data).hexdigest() for name, data in stored.items()}


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_shard_of_equal_numbers_is_stored_like_any_other(url: str, value: float) -> None:
    """Zarr leaves out chunks that hold nothing but the fill value: "absent" would mean nothing."""
    store = create(url)
    arrays = make_arrays(store.manifest, range(4))
    for array in arrays.values():
        array[:] = value
    commit = store.write_shard(0, arrays)
    assert commit.nonfinite == (0 if value == 0 else 4)
    chunk = store.objects.get(layout.chunk_key(store.manifest, "embedding", 0))
    assert chunk == np.full((4, 2, 3), value, "<f2").tobytes()
    np.testing.assert_array_equal(store.read_shard(0), np.full((4, 2, 3), value, np.float16))
    assert check_store(url).problems == []


def test_a_chunk_that_lost_its_record_can_be_written_again(url: str) -> None:
    """Also over remains that zarr could not read: the last chunk is padded, not merged."""
    store = finished(url)
    before = snapshot(store)
    for name in store.manifest.outputs:
        store.objects.put(layout.chunk_key(store.manifest, name, 2), b"remains")
    assert not check_store(url).ok
    store.objects.delete(layout.commit_key(2))
    assert not store.complete
    assert snapshot(complete(FeatureStore.open(url))) == before


# One object of each kind, of a complete store.
KINDS = {
    "manifest": layout.GROUP,
    "array": layout.array_key("embedding"),
    "index": layout.INDEX,
    "created": layout.CREATED,
    "chunk": "embedding/c/1/0/0",
    "padded chunk": "logits/c/2/0/0",
    "commit": layout.commit_key(1),
    "failures": layout.FAILURES,
    "table": layout.COMMIT_TABLE,
    "finished": layout.FINISHED,
}


@pytest.fixture(scope="module")
def whole() -> FeatureStore:
    """A complete store with a failure, of which every test takes a copy."""
    store = create(f"memory://{uuid.uuid4().hex}")
    failure = Failure(5, "train/5", "not an image: train/5")
    for shard, rows in enumerate(store.shards):
        arrays = make_arrays(store.manifest, rows)
        store.write_shard(shard, arrays, failures=[failure] if shard == 1 else [])
    store.finish()
    return store


@pytest.fixture
def copy(whole: FeatureStore, memory: str) -> FeatureStore:
    objects = open_objects(memory)
    for key in whole.objects.sizes():
        objects.put(key, whole.objects.get(key) or b"")
    return FeatureStore.open(memory)


def require_found(store: FeatureStore, key: str) -> None:
    report = check_store(store.url)
    assert not report.ok
    assert not any("\n" in problem for problem in report.problems)
    assert any(key.partition("/c/")[0] in problem for problem in report.problems)


@pytest.mark.parametrize("kind", KINDS)
@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(where=st.floats(0, 1, exclude_max=True), flipped=st.integers(1, 255))
def test_a_flipped_byte_is_found_wherever_it_is(
    copy: FeatureStore, kind: str, where: float, flipped: int
) -> None:
    key = KINDS[kind]
    data = copy.objects.get(key) or b""
    damaged = bytearray(data)
    damaged[int(where * len(data))] ^= flipped
    copy.objects.put(key, bytes(damaged))
    require_found(copy, key)
    copy.objects.put(key, data)
    assert check_store(copy.url).problems == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", ["missing", "empty", "shorter", "longer", "another"])
def test_a_damaged_object_is_found(copy: FeatureStore, kind: str, damage: str) -> None:
    key = KINDS[kind]
    data = copy.objects.get(key) or b""
    if damage == "missing":
        copy.objects.delete(key)
    else:
        other = copy.objects.get("embedding/c/0/0/0") or b""
        damaged = {"empty": b"", "shorter": data[:-1], "longer": data + b"\n", "another": other}
        copy.objects.put(key, damaged[damage])
    if damage == "missing" and kind == "created":
        assert "was interrupted while it was created" in check_store(copy.url).problems[0]
    elif damage == "missing" and kind == "table":
        # As in a store that an older egapipe has finished.
        assert FeatureStore.open(copy.url).complete
        assert check_store(copy.url).complete
    elif damage == "missing" and kind == "finished":
        assert not FeatureStore.open(copy.url).complete
        assert not check_store(copy.url).complete
    else:
        require_found(copy, key)


@pytest.mark.parametrize("kind", ["manifest", "array", "index", "created", "chunk", "commit"])
def test_it_is_found_in_an_unfinished_store_too(copy: FeatureStore, kind: str) -> None:
    for key in (layout.FINISHED, layout.FAILURES, layout.commit_key(0)):
        copy.objects.delete(key)
    report = check_store(copy.url)
    assert (report.ok, report.complete, report.committed, report.shards) == (True, False, 2, 3)
    key = KINDS[kind]
    data = copy.objects.get(key) or b""
    middle = len(data) // 2
    copy.objects.put(key, data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    require_found(copy, key)


def test_every_byte_of_a_record_counts(copy: FeatureStore) -> None:
    """Also those of members that only tell what happened: host and seconds."""
    data = copy.objects.get("commits/000001.json") or b""
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1
        with pytest.raises(
            StoreError, match=r"^here is damaged \(.*\): delete it and run `egapipe"
        ):
            Commit.decode(bytes(damaged), "here")
    assert Commit.decode(data, "here").shard == 1


def test_swapped_records_and_chunks_are_found(copy: FeatureStore) -> None:
    for one, other in (
        ("commits/000000.json", "commits/000001.json"),
        ("embedding/c/0/0/0", "embedding/c/1/0/0"),
    ):
        first, second = copy.objects.get(one) or b"", copy.objects.get(other) or b""
        copy.objects.put(one, second)
        copy.objects.put(other, first)
        assert len(check_store(copy.url).problems) >= 2
        copy.objects.put(one, first)
        copy.objects.put(other, second)
    assert check_store(copy.url).ok


def test_damage_is_refused_where_it_is_read_and_the_remedy_works(copy: FeatureStore) -> None:
    before = snapshot(copy)
    chunk = copy.objects.get("embedding/c/1/0/0") or b""
    copy.objects.put("embedding/c/1/0/0", chunk[::-1])
    with pytest.raises(StoreError) as refused:
        copy.read_shard(1)
    remedy = "delete commits/000001.json there and run `egapipe extract` again to redo the shard"
    assert str(refused.value).endswith(f"has not the recorded checksum: {remedy}")
    copy.objects.delete("commits/000001.json")
    arrays = make_arrays(copy.manifest, copy.shards[1])
    copy.write_shard(1, arrays, failures=[Failure(5, "train/5", "not an image: train/5")])
    copy.finish()
    assert snapshot(copy) == before


@pytest.mark.parametrize("damage", [None, b"no JSON", b"{}"])
def test_zarr_is_not_believed_when_its_metadata_are_damaged(url: str, damage: bytes | None) -> None:
    store = create(url)
    key = layout.array_key("logits")
    if damage is None:
        store.objects.delete(key)
    else:
        store.objects.put(key, damage)
    with pytest.raises(StoreError, match=r"logits/zarr\.json (is missing|has not the recorded)"):
        write(FeatureStore.open(url), 0)
    assert store.commits() == {}


def test_what_does_not_belong_to_a_store_is_found(copy: FeatureStore) -> None:
    copy.objects.put("commits/000003.json", copy.objects.get("commits/000002.json") or b"")
    copy.objects.put("embedding/c/3/0/0", b"")
    assert check_store(copy.url).problems == [
        "commits/000003.json does not belong to the store",
        "embedding/c/3/0/0 does not belong to the store",
    ]


def test_what_an_older_egapipe_asks_for_is_what_it_was(copy: FeatureStore) -> None:
    """It takes a store for finished when the last record is, byte by byte, what it makes of the
    others, and an index for one when Arrow's types are those of text with 32-bit offsets."""
    failures = copy.objects.get(layout.FAILURES) or b""
    lines = [copy.manifest.hash()]
    for shard in range(3):
        commit = Commit.decode(copy.objects.get(layout.commit_key(shard)) or b"", "here")
        lines += [f"{shard} {name} {commit.sha256[name]}" for name in sorted(commit.sha256)]
    ours = Finished(
        content=sha256("\n".join(lines).encode()).hexdigest(),
        sha256={layout.FAILURES: sha256(failures).hexdigest()},
    )
    assert copy.objects.get(layout.FINISHED) == ours.encode()
    index = pq.read_table(pa.BufferReader(copy.objects.get(layout.INDEX) or b""))
    assert [str(kind) for kind in index.schema.types] == ["int64", "string", "int64", "string"]
    assert index["key"].to_pylist() == [f"train/{row}" for row in range(10)]
