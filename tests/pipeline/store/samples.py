"""Small stores, made through the public interface."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from egapipe.pipeline.config.data import ViewsConfig
from egapipe.pipeline.store import Commit, FeatureStore, Manifest
from egapipe.pipeline.store.format import layout
from egapipe.pipeline.store.records.commits import encode_commits
from egapipe.pipeline.views import plan_hash

Arrays = dict[str, npt.NDArray[np.float32]]

OUTPUTS = {"embedding": (3,), "logits": (2,)}


def make_manifest(
    rows: int = 10,
    shard_rows: int = 4,
    view_count: int = 2,
    dtype: str = "float16",
    outputs: Mapping[str, tuple[int, ...]] = OUTPUTS,
    images: bool = False,
    **changes: Any,
) -> Manifest:
    """view_count: V, the clean one included. images: whether it keeps their digests. changes: other
    fields of the manifest."""
    plan = ViewsConfig(count=view_count - 1)
    content: dict[str, Any] = {
        "dataset": {"name": "sample", "fingerprint": "f" * 64, "rows": rows}
        | ({"images": "sha256"} if images else {}),
        "teacher": {"model": "vit", "sha256": "a" * 64},
        "preprocessing": {"size": 224},
        "views": plan,
        "views_hash": plan_hash(plan),
        "outputs": dict(outputs),
        "dtype": dtype,
        "shard_rows": shard_rows,
        "versions": {"torch": "2.13"},
    }
    return Manifest(**{**content, **changes})


def make_index(rows: int = 10) -> pa.Table:
    return pa.table(
        {
            "row": pa.array(range(rows), pa.int64()),
            "key": [f"train/{row}" for row in range(rows)],
            "label": pa.array([row % 3 - 1 for row in range(rows)], pa.int64()),
            "source": ["sample"] * rows,
        }
    )


def make_arrays(manifest: Manifest, rows: range) -> Arrays:
    """The teacher's outputs for some rows: a function of the row, as a real teacher's are."""
    return {
        name: np.stack(
            [
                np.random.default_rng([row, len(name)]).standard_normal(
                    (manifest.view_count, *shape), dtype=np.float32
                )
                for row in rows
            ]
        )
        for name, shape in manifest.outputs.items()
    }


def make_digests(manifest: Manifest, rows: range) -> dict[int, bytes] | None:
    """Of the images of some rows, where the store keeps them."""
    if not manifest.dataset.images:
        return None
    return {row: hashlib.sha256(str(row).encode()).digest() for row in rows}


def create(url: str, manifest: Manifest | None = None) -> FeatureStore:
    manifest = manifest or make_manifest()
    return FeatureStore.create(url, manifest, make_index(manifest.rows))


def write(store: FeatureStore, shard: int) -> Commit:
    rows = store.shards[shard]
    return store.write_shard(
        shard, make_arrays(store.manifest, rows), images=make_digests(store.manifest, rows)
    )


def digests_of(store: FeatureStore, shard: int) -> dict[int, bytes]:
    """Of the images of a committed shard, as `write_shard` takes them."""
    commit = store.commits()[shard]
    return dict(zip(store.shards[shard], map(bytes, store.read_digests(commit)), strict=True))


def complete(store: FeatureStore, shards: Iterable[int] | None = None) -> FeatureStore:
    """Write what is missing, in the order given, and finish."""
    for shard in store.pending() if shards is None else shards:
        write(store, shard)
    store.finish()
    return store


def finished(url: str, manifest: Manifest | None = None) -> FeatureStore:
    return complete(create(url, manifest))


def snapshot(store: FeatureStore) -> dict[str, bytes]:
    """Every object. Of a commit record, all that is the same in every run: not time and host."""
    objects = {key: store.objects.get(key) or b"" for key in store.objects.sizes()}
    same = {
        shard: commit.model_copy(update={"seconds": {}, "host": ""})
        for shard, commit in store.commits().items()
    }
    for shard, commit in same.items():
        objects[layout.commit_key(shard)] = commit.encode()
    if layout.COMMIT_TABLE in objects:
        objects[layout.COMMIT_TABLE] = encode_commits(same)
    return objects
