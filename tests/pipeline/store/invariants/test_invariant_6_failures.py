"""Invariant 6: a bad image is data, not a crash."""

import io
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from egapipe.pipeline.store import Failure, Features, FeatureStore, check_store
from tests.pipeline.store.samples import (
    create,
    finished,
    make_arrays,
    make_manifest,
)


def failing_store(url: str) -> FeatureStore:
    """Row 2 has no image; rows 5 and 8 have outputs that are not finite in float16."""
    store = create(url)
    for shard, rows in enumerate(store.shards):
        arrays = make_arrays(store.manifest, rows)
        failures = [Failure(2, "train/2", "not an image: train/2")] if shard == 0 else []
        if shard == 1:
            arrays["logits"][1, 1, 0] = np.nan
        if shard == 2:
            arrays["embedding"][0, 0, 0] = 1e5
        store.write_shard(shard, arrays, failures=failures)
    return store


NOT_FINITE = "teacher output is not finite in float16"
FAILED = [
    Failure(2, "train/2", "not an image: train/2"),
    Failure(5, "train/5", NOT_FINITE),
    Failure(8, "train/8", NOT_FINITE),
]


def test_failed_rows_are_marked_counted_and_listed(url: str) -> None:
    store = failing_store(url)
    assert store.failures() == FAILED
    assert [commit.nonfinite for commit in store.commits().values()] == [0, 1, 1]
    store.finish()
    listed = pq.read_table(io.BytesIO(store.objects.get("failures.parquet") or b""))
    assert listed.to_pylist() == [failure._asdict() for failure in FAILED]
    assert check_store(url).problems == []


def test_they_are_nan_in_every_view_and_array_and_others_are_kept(memory: str) -> None:
    store = failing_store(memory)
    expected = make_arrays(store.manifest, range(10))
    for name, array in expected.items():
        array[[2, 5, 8]] = np.nan
        stored = np.concatenate([store.read_shard(shard, name) for shard in range(3)])
        np.testing.assert_array_equal(stored, array.astype(np.float16))


@pytest.mark.parametrize(
    ("dtype", "nan"), [("float16", "007e"), ("bfloat16", "c07f"), ("float32", "0000c07f")]
)
def test_their_bytes_and_the_padding_are_one_kind_of_nan(memory: str, dtype: str, nan: str) -> None:
    store = create(memory, make_manifest(rows=3, shard_rows=2, dtype=dtype))
    arrays = make_arrays(store.manifest, range(2, 3))
    arrays["embedding"][:] = -np.nan
    store.write_shard(1, arrays)
    chunk = store.objects.get("embedding/c/1/0/0") or b""
    assert chunk.hex() == nan * (2 * 2 * 3)


def test_they_are_left_out_of_training(memory: str) -> None:
    store = failing_store(memory)
    store.finish()
    features = Features.open(store)
    assert np.flatnonzero(~features.valid).tolist() == [2, 5, 8]
    kept = features.take(np.flatnonzero(features.valid), 1)
    assert kept.isfinite().all()


def test_a_store_of_failures_only_is_a_store(url: str) -> None:
    store = create(url)
    for shard, rows in enumerate(store.shards):
        arrays = make_arrays(store.manifest, rows)
        keys = store.keys(list(rows))
        failures = [Failure(r, k, "no image") for r, k in zip(rows, keys, strict=True)]
        store.write_shard(shard, arrays, failures=failures)
    store.finish()
    assert len(store.failures()) == 10
    assert check_store(url).problems == []


def test_no_failure_is_an_empty_list(url: str) -> None:
    store = finished(url)
    assert store.failures() == []
    assert "failures.parquet" in store.objects.sizes()
    record = json.loads(store.objects.get("commits/000000.json") or b"")
    assert record["failures"] == []
