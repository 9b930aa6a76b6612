"""`egapipe store diff`: what two stores differ in, and by how much."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from egapipe.pipeline.errors import StoreError, UsageError
from egapipe.pipeline.store import Failure, FeatureStore, plan_shards
from egapipe.pipeline.store.commands.diff import cosine_differences, diff_stores, overlaps
from tests.pipeline.store.samples import (
    complete,
    create,
    finished,
    make_arrays,
    make_index,
    make_manifest,
    write,
)
from tests.pipeline.store.test_command import app

SIZES = st.integers(1, 40)


@given(rows=SIZES, mine=SIZES, theirs=SIZES)
def test_overlaps_cover_every_row_once_and_lie_in_both_shards(
    rows: int, mine: int, theirs: int
) -> None:
    plans = plan_shards(rows, mine), plan_shards(rows, theirs)
    found = list(overlaps(*plans))
    assert [row for _, _, part in found for row in part] == list(range(rows))
    for i, j, part in found:
        assert set(part) <= set(plans[0][i])
        assert set(part) <= set(plans[1][j])
        assert len(part)


def test_a_cosine_difference_far_below_float32_is_seen() -> None:
    a = np.array([[1, 0], [2, 2], [0, 0], [0, 0], [1, 1], [np.nan, 1]], np.float32)
    b = np.array([[1, 1e-6], [-1, -1], [0, 0], [0, 1], [3, 3], [1, 1]], np.float32)
    found = cosine_differences(a, b)
    np.testing.assert_allclose(found[:5], [5e-13, 2, 0, 0.5, 0], rtol=1e-6, atol=1e-30)
    assert np.isnan(found[5])


def test_a_copy_is_equal_wherever_it_lies(tmp_path: Path, memory: str) -> None:
    store, other = finished(str(tmp_path / "a.zarr")), create(memory)
    complete(other, [2, 0, 1])
    found = diff_stores(store.url, other.url)
    assert found.equal
    assert (found.manifest, found.rows) == ([], [])
    for array in found.arrays:
        assert (array.shards, array.differing, array.compared) == (3, 0, 20)
        assert (array.cosine_max, array.cosine_mean) == (0, 0)


def test_every_manifest_key_that_differs_is_named(tmp_path: Path) -> None:
    a = finished(str(tmp_path / "a.zarr"))
    changed = make_manifest(
        teacher={"model": "vit", "sha256": "b" * 64, "revision": "main"}, versions={"torch": "2.14"}
    )
    found = diff_stores(a.url, finished(str(tmp_path / "b.zarr"), changed).url)
    assert not found.equal
    assert found.manifest == [
        "teacher.revision: not set | 'main'",
        f"teacher.sha256: '{'a' * 64}' | '{'b' * 64}'",
        "versions.torch: '2.13' | '2.14'",
    ]
    assert all(array.equal for array in found.arrays)


@pytest.mark.parametrize(("dtype", "most"), [("float16", 2**-11), ("bfloat16", 2**-8)])
def test_the_same_numbers_in_another_type_and_layout_are_compared_row_by_row(
    tmp_path: Path, dtype: str, most: float
) -> None:
    exact = finished(str(tmp_path / "a.zarr"), make_manifest(dtype="float32"))
    rounded = make_manifest(dtype=dtype, shard_rows=3)
    found = diff_stores(exact.url, finished(str(tmp_path / "b.zarr"), rounded).url)
    assert [line.partition(":")[0] for line in found.manifest] == ["dtype", "shard_rows"]
    for array in found.arrays:
        assert (array.shards, array.differing, array.compared) == (None, None, 20)
        # Each entry is off by one rounding at most, so the angle is at most that.
        assert 0 < array.cosine_mean <= array.cosine_max <= most**2 / 2 * 1.01


def changed_row(url: str, row: int, view: int) -> FeatureStore:
    """The sample store with the first two entries of one embedding exchanged."""
    store = create(url)
    for shard, rows in enumerate(store.shards):
        arrays = make_arrays(store.manifest, rows)
        if row in rows:
            embedding = arrays["embedding"][row - rows.start, view]
            embedding[:2] = embedding[1::-1].copy()
        store.write_shard(shard, arrays)
    store.finish()
    return store


def test_one_changed_embedding_is_found_and_measured(tmp_path: Path) -> None:
    a = finished(str(tmp_path / "a.zarr"))
    b = changed_row(str(tmp_path / "b.zarr"), row=6, view=1)
    embedding, logits = diff_stores(a.url, b.url).arrays
    assert (embedding.shards, embedding.differing, embedding.compared) == (3, 1, 20)
    old, new = (s.read_shard(1)[2, 1].astype(np.float64) for s in (a, b))
    cosine = old @ new / np.linalg.norm(old) / np.linalg.norm(new)
    assert embedding.cosine_max == pytest.approx(1 - cosine)
    assert embedding.cosine_mean == pytest.approx((1 - cosine) / 20)
    assert logits.equal


def test_rows_failures_and_progress_are_compared(tmp_path: Path) -> None:
    a = finished(str(tmp_path / "a.zarr"))
    index = make_index().set_column(2, "label", [[*make_index()["label"].to_pylist()[:-2], 5, 5]])
    b = FeatureStore.create(str(tmp_path / "b.zarr"), make_manifest(), index)
    arrays = make_arrays(b.manifest, b.shards[0])
    b.write_shard(0, arrays, failures=[Failure(3, "train/3", "no image")])
    write(b, 1)
    found = diff_stores(a.url, b.url)
    assert not found.equal
    assert found.manifest == []
    assert found.rows == [
        "labels of 2 of 10 rows, first row 8: 1 | 5",
        "failures only in the second: 1 rows, the first is row 3: no image",
        "shards committed: 3 of 3 | 2 of 3",
    ]
    assert [(x.shards, x.differing, x.compared) for x in found.arrays] == [(2, 1, 14)] * 2


def test_other_shapes_are_not_compared(tmp_path: Path) -> None:
    a = finished(str(tmp_path / "a.zarr"))
    wider = make_manifest(outputs={"embedding": (4,), "extra": (2,)})
    found = diff_stores(a.url, finished(str(tmp_path / "b.zarr"), wider).url)
    assert [line.partition(":")[0] for line in found.manifest] == [
        "outputs.embedding",
        "outputs.extra",
        "outputs.logits",
    ]
    assert [array.line() for array in found.arrays] == [
        "embedding: no embedding in both to compare"
    ]


def test_a_damaged_chunk_is_an_error(tmp_path: Path) -> None:
    a = finished(str(tmp_path / "a.zarr"))
    b = changed_row(str(tmp_path / "b.zarr"), row=6, view=1)
    chunk = tmp_path / "b.zarr" / "embedding" / "c" / "1" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[::-1])
    with pytest.raises(StoreError, match=r"shard 1 of store .* is damaged"):
        diff_stores(a.url, b.url)


def test_the_command_says_what_differs_and_exits_with_1(tmp_path: Path) -> None:
    a = finished(str(tmp_path / "one" / "a.zarr"))
    b = changed_row(str(tmp_path / "b.zarr"), row=6, view=1)
    same = CliRunner().invoke(app, ["store", "diff", str(tmp_path / "one"), a.url])
    assert same.exit_code == 0
    assert same.stdout.splitlines()[0] == f"{a.url} | {a.url}"
    assert same.stdout.splitlines()[-1] == "equal"
    other = CliRunner().invoke(app, ["store", "diff", a.url, b.url])
    assert other.exit_code == 1
    assert "  embedding: 1 of 3 shards differ, 1 - cosine max" in other.stdout
    assert other.stdout.splitlines()[-1] == "different"
    two = CliRunner().invoke(app, ["store", "diff", str(tmp_path), a.url])
    assert isinstance(two.exception, UsageError)
    assert "holds 2 stores" in str(two.exception)
