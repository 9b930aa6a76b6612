"""The index: row groups that are read by themselves, with as much text as there is."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.store import FeatureStore, check_store
from egapipe.pipeline.store.format import index as module
from egapipe.pipeline.store.format import layout
from egapipe.pipeline.store.format.index import (
    INDEX_SCHEMA,
    StoredIndex,
    decode_index,
    encode_index,
    index_problems,
)
from tests.pipeline.store.requests import counted
from tests.pipeline.store.samples import create, finished, make_index, make_manifest

TINY = make_manifest(rows=10, shard_rows=4, outputs={"embedding": (3,)})


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every index counts as a large one."""
    monkeypatch.setattr(module, "_SMALL", 16)


def groups(store: FeatureStore) -> list[int]:
    data = store.objects.get(layout.INDEX) or b""
    metadata = pq.read_metadata(pa.BufferReader(data))
    return [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]


def test_a_row_group_is_a_shard(memory: str) -> None:
    assert groups(create(memory, TINY)) == [4, 4, 2]


def test_of_many_shards_it_is_several_of_them(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a reader has to know of all groups does not grow."""
    monkeypatch.setattr(layout, "INDEX_GROUPS", 3)
    manifest = make_manifest(rows=10, shard_rows=1, outputs={"embedding": (3,)})
    store = create(memory, manifest)
    assert groups(store) == [4, 4, 2]
    assert store.index().to_pydict() == make_index().to_pydict()


def test_a_part_is_what_the_whole_has(memory: str, large: None) -> None:
    store = create(memory, TINY)
    expected = make_index().cast(INDEX_SCHEMA)
    for start in range(10):
        for stop in range(start, 11):
            part = store.listing.slice(start, stop - start)
            assert part.equals(expected.slice(start, stop - start)), (start, stop)
    assert store.index().equals(expected)
    assert store.keys([9, 0, 5]) == ["train/9", "train/0", "train/5"]
    sent: StoredIndex = pickle.loads(pickle.dumps(store.listing))  # noqa: S301
    assert sent.slice(3, 2).equals(expected.slice(3, 2))
    with ThreadPoolExecutor(4) as pool:
        rows = [row % 10 for row in range(200)]
        assert list(pool.map(lambda row: sent.keys([row])[0], rows)) == [f"train/{r}" for r in rows]


def test_keys_of_a_shard_cost_its_row_group(memory: str, large: None) -> None:
    store = create(memory, TINY)
    fresh = FeatureStore.open(memory)
    assert fresh.keys([]) == []
    with counted() as asked:
        assert fresh.keys([4]) == ["train/4"]
    begun = asked.of("read")
    with counted() as asked:
        assert fresh.keys([5, 6, 7]) == ["train/5", "train/6", "train/7"]
    assert asked.of("read") == 0
    with counted() as asked:
        assert fresh.keys([1]) == ["train/1"]
    # A column each.
    assert 0 < asked.of("read") <= 4 < begun + 4
    assert store.listing.num_rows == 10


def test_a_store_of_large_indexes_is_checked_and_compared(memory: str, large: None) -> None:
    store = finished(memory, TINY)
    assert check_store(memory).problems == []
    create(memory, TINY)
    index = make_index()
    other = index.set_column(2, "label", [[*range(9), 0]])
    with pytest.raises(StoreError, match="another one: label of row 0 is -1, the data set has 0"):
        FeatureStore.create(memory, TINY, other)
    assert store.complete


def test_a_flipped_byte_of_a_large_index_is_found(memory: str, large: None) -> None:
    """By the whole checksum in a check, by that of its page where a part of it is read."""
    store = finished(memory, TINY)
    data = store.objects.get(layout.INDEX) or b""
    place = pq.read_metadata(pa.BufferReader(data)).row_group(1).column(1).data_page_offset
    changed = data[: place + 30] + bytes([data[place + 30] ^ 1]) + data[place + 31 :]
    store.objects.put(layout.INDEX, changed)
    assert any("has not the recorded checksum" in p for p in check_store(memory).problems)
    fresh = FeatureStore.open(memory)
    assert fresh.keys([0]) == ["train/0"]
    with pytest.raises(StoreError, match=r"index\.parquet is damaged"):
        fresh.keys([5])


def test_an_index_of_one_row_group_is_read(large: None, memory: str) -> None:
    """As older egapipes have written it, with Arrow's plain text."""
    store = create(memory, TINY)
    sink = pa.BufferOutputStream()
    fields = [
        (name, pa.string() if i in (1, 3) else pa.int64())
        for i, name in enumerate(("row", "key", "label", "source"))
    ]
    schema = pa.schema([pa.field(name, kind, nullable=False) for name, kind in fields])
    pq.write_table(make_index().cast(schema), sink, compression="zstd")
    data = sink.getvalue().to_pybytes()
    store.objects.put(layout.INDEX, data)
    old = StoredIndex(store.objects, store.created, 10)
    assert old.slice(3, 5).equals(make_index().cast(INDEX_SCHEMA).slice(3, 5))
    assert decode_index(data, "here").equals(make_index().cast(INDEX_SCHEMA))


class LongKeys:
    """2.2 GB of keys: more than text with 32-bit offsets can hold."""

    num_rows = 34

    def slice(self, offset: int, length: int) -> pa.Table:
        rows = range(offset, min(offset + length, self.num_rows))
        keys = [f"{row:02d}" * (1 << 25) for row in rows]
        columns = [
            pa.array(rows, pa.int64()),
            pa.array(keys, pa.large_string()),
            pa.array(np.zeros(len(rows), np.int64)),
            pa.array(["s"] * len(rows), pa.large_string()),
        ]
        return pa.Table.from_arrays(columns, schema=INDEX_SCHEMA)


# Gigabytes of text.
@pytest.mark.slow
def test_text_may_be_longer_than_2_gib() -> None:
    keys, rows = LongKeys(), LongKeys.num_rows
    assert index_problems(keys, rows) == []
    table = decode_index(encode_index(keys, 2), "here")
    assert table["key"].nbytes > 2**31
    assert table.slice(33, 1).equals(keys.slice(33, 1))
