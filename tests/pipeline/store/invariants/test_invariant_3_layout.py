"""Invariant 3: the layout is a pure function of the plan, never of the number of workers.

The plan is N rows, V views, D numbers an embedding, R rows a shard, and the stored type.
"""

import uuid
from pathlib import Path
from random import Random

import numpy as np
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from egapipe.pipeline.store import FeatureStore, Manifest, plan_shards
from egapipe.pipeline.store.format import layout
from tests.pipeline.store.samples import (
    complete,
    create,
    finished,
    make_arrays,
    make_manifest,
    snapshot,
    write,
)

PLANS = st.builds(
    make_manifest,
    rows=st.integers(1, 12),
    shard_rows=st.integers(1, 15),
    view_count=st.integers(1, 3),
    dtype=st.sampled_from(["float16", "bfloat16", "float32"]),
    outputs=st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9_]{0,6}", fullmatch=True).filter(
            lambda name: name not in ("index", "commits")
        ),
        st.lists(st.integers(1, 3), max_size=3).map(tuple),
        min_size=1,
        max_size=2,
    ),
)


@given(rows=st.integers(0, 10_000), shard_rows=st.integers(1, 3_000))
def test_shards_are_consecutive_full_and_cover_every_row_once(rows: int, shard_rows: int) -> None:
    shards = plan_shards(rows, shard_rows)
    assert [row for shard in shards for row in shard] == list(range(rows))
    assert all(len(shard) == shard_rows for shard in shards[:-1])
    assert all(0 < len(shard) <= shard_rows for shard in shards)


@given(plan=PLANS)
def test_nothing_else_of_the_manifest_moves_an_object(plan: Manifest) -> None:
    other = plan.model_copy(
        update={"teacher": {"model": "other"}, "versions": {}, "preprocessing": {"size": 1}}
    )
    assert layout.planned_keys(plan) == layout.planned_keys(other)
    ours, theirs = layout.metadata_documents(plan), layout.metadata_documents(other)
    assert ours.keys() == theirs.keys()
    assert all(ours[key] == theirs[key] for key in ours if key != layout.GROUP)


@settings(deadline=None, max_examples=40)
@given(plan=PLANS, order=st.randoms(use_true_random=False))
def test_any_plan_written_in_any_order_is_that_layout(plan: Manifest, order: Random) -> None:
    url = f"memory://{uuid.uuid4().hex}"
    store = create(url, plan)
    shards = list(range(len(store.shards)))
    order.shuffle(shards)
    complete(store, shards)
    assert set(store.objects.sizes()) == layout.planned_keys(plan)
    expected = make_arrays(plan, range(plan.rows))
    for name, shape in plan.outputs.items():
        sizes = {store.objects.sizes()[layout.chunk_key(plan, name, i)] for i in shards}
        assert sizes == {layout.chunk_bytes(plan, name)}
        array = zarr.open_group(url, mode="r")[name]
        assert array.shape == (plan.rows, plan.view_count, *shape)
        assert array.chunks == (min(plan.shard_rows, plan.rows), plan.view_count, *shape)
        if plan.dtype != "bfloat16":
            np.testing.assert_array_equal(array[:], expected[name].astype(plan.dtype))


def test_the_order_and_number_of_writers_leave_no_trace(tmp_path: Path) -> None:
    one = finished(str(tmp_path / "one"))
    other = create(str(tmp_path / "other"))
    for shard in (2, 1, 0):
        write(FeatureStore.open(other.url), shard)
    other.finish()
    assert snapshot(one) == snapshot(other)
    assert set(snapshot(one)) == layout.planned_keys(one.manifest)
