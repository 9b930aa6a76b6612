"""Features: random access equals the Zarr arrays, in whichever process."""

import multiprocessing
import pickle
import sys
import uuid
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.store import Failure, Features, FeatureStore
from tests.pipeline.store.samples import create, finished, make_arrays, make_manifest, write

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
OUTPUTS = {"embedding": (5,), "grid": (2, 3), "norm": ()}
ROWS, VIEWS = 11, 3


@pytest.fixture(scope="module", params=DTYPES)
def features(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Features, torch.Tensor]]:
    """By output: the features of a store with a failed row, and [N, V, *shape] as zarr reads it."""
    manifest = make_manifest(ROWS, 4, VIEWS, request.param, OUTPUTS)
    store = create(f"memory://{uuid.uuid4().hex}", manifest)
    for shard, rows in enumerate(store.shards):
        failures = [Failure(6, "train/6", "no image")] if 6 in rows else []
        store.write_shard(shard, make_arrays(manifest, rows), failures=failures)
    store.finish()
    folder = str(tmp_path_factory.mktemp("cache"))
    group = zarr.open_group(store.url, mode="r")
    return {
        name: (
            Features.open(store, output=name, cache_dir=folder),
            torch.from_numpy(group[name][:]).view(DTYPES[request.param]),
        )
        for name in OUTPUTS
    }


def equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Bit for bit: NaN equals NaN."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    bits = torch.int32 if one.dtype == torch.float32 else torch.int16
    return torch.equal(one.contiguous().view(bits), other.contiguous().view(bits))


@settings(deadline=None)
@given(
    name=st.sampled_from(sorted(OUTPUTS)),
    pairs=st.lists(st.tuples(st.integers(0, ROWS - 1), st.integers(0, VIEWS - 1)), max_size=20),
    view=st.integers(0, VIEWS - 1),
)
def test_take_equals_the_zarr_array(
    features: dict[str, tuple[Features, torch.Tensor]],
    name: str,
    pairs: list[tuple[int, int]],
    view: int,
) -> None:
    ours, zarrs = features[name]
    rows, views = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    assert equal(ours.take(rows, views), zarrs[rows, views])
    assert equal(ours.take(rows, view), zarrs[rows, view])


def test_shapes_and_valid_rows(features: dict[str, tuple[Features, torch.Tensor]]) -> None:
    dims = {name: ours.dim for name, (ours, _) in features.items()}
    assert dims == {"embedding": 5, "grid": 6, "norm": 1}
    for ours, zarrs in features.values():
        assert (ours.rows, ours.view_count, ours.dtype) == (ROWS, VIEWS, zarrs.dtype)
        assert ours.shape == tuple(zarrs.shape[2:])
        assert ours.valid.tolist() == [row != 6 for row in range(ROWS)]


def test_what_is_taken_is_a_copy(features: dict[str, tuple[Features, torch.Tensor]]) -> None:
    ours, zarrs = features["embedding"]
    taken = ours.take(np.arange(4), 0)
    taken.zero_()
    assert equal(ours.take(np.arange(4), 0), zarrs[:4, 0])


@pytest.mark.parametrize(
    ("rows", "view", "said"),
    [
        ([0, ROWS], 0, f"row {ROWS} is not in 0..{ROWS - 1}"),
        ([-1, 0], 0, f"row -1 is not in 0..{ROWS - 1}"),
        ([0, 1], VIEWS, f"view {VIEWS} is not in 0..{VIEWS - 1}"),
        ([0, 1], [0, -1], f"view -1 is not in 0..{VIEWS - 1}"),
        ([0, 1], [0, 1, 2], "rows and .* views do not pair"),
    ],
)
def test_what_is_out_of_range_is_refused(
    features: dict[str, tuple[Features, torch.Tensor]],
    rows: list[int],
    view: int | list[int],
    said: str,
) -> None:
    ours, _ = features["embedding"]
    with pytest.raises(IndexError, match=said):
        ours.take(np.array(rows), view if isinstance(view, int) else np.array(view))


def test_an_unfinished_store_is_refused_with_what_to_do(memory: str, cache: Path) -> None:
    store = create(memory)
    with pytest.raises(StoreError, match=r"not complete \(0 of 3 shards\): run `egapipe extract`"):
        Features.open(store)
    for shard in range(3):
        write(store, shard)
    with pytest.raises(StoreError, match="is not complete: run `egapipe extract` to finish it"):
        Features.open(store)
    store.finish()
    store.objects.delete("commits/000001.json")
    with pytest.raises(StoreError, match=r"not complete \(2 of 3 shards\)"):
        Features.open(store)
    # The index was written there on its way to the store.
    assert list(cache.rglob("*")) == []


def test_an_array_there_is_not_is_refused_with_those_there_are(memory: str) -> None:
    store = finished(memory)
    with pytest.raises(StoreError, match="no array 'logit': it has embedding, logits"):
        Features.open(store, "logit")


def taken(features: Features) -> bytes:
    return features.take(np.arange(features.rows), 1).numpy().tobytes()


def test_it_works_in_a_fork(tmp_path: Path) -> None:
    features = Features.open(finished(str(tmp_path / "s")))
    expected = taken(features)
    fork = multiprocessing.get_context("fork")
    with fork.Pool(2) as pool:
        assert pool.map_async(taken, [features] * 4).get(60) == [expected] * 4
    # Also where nothing is pickled, as in a DataLoader's workers.
    queue = fork.SimpleQueue()
    worker = fork.Process(target=lambda: queue.put(taken(features)))
    worker.start()
    assert queue.get() == expected
    worker.join()
    assert worker.exitcode == 0


def test_it_works_in_a_spawned_process_which_needs_no_ray(tmp_path: Path) -> None:
    features = Features.open(finished(str(tmp_path / "s")))
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(1) as pool:
        there = pool.apply_async(taken_without_ray, [features]).get(120)
    assert there == taken(features)


def taken_without_ray(features: Features) -> bytes:
    assert "ray" not in sys.modules
    return taken(features)


def test_a_store_and_its_zarr_work_in_a_fork(tmp_path: Path) -> None:
    """Zarr and pyarrow have threads, which a fork does not take along."""
    store = create(str(tmp_path / "s"))
    write(store, 0)
    store.index()
    worker = multiprocessing.get_context("fork").Process(target=use_in_child, args=(store,))
    worker.start()
    worker.join()
    assert worker.exitcode == 0
    assert FeatureStore.open(store.url).pending() == [2]


def use_in_child(store: FeatureStore) -> None:
    write(store, 1)
    store = FeatureStore.open(store.url)
    assert store.index().num_rows == 10
    assert store.read_shard(0).shape == (4, 2, 3)


def test_a_relative_cache_folder_is_the_same_for_whoever_unpickles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    features = Features.open(finished("s"), cache_dir="copies")
    assert features.path.parent == tmp_path / "copies" / "features"
    data = pickle.dumps(features)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = pickle.loads(data)  # noqa: S301
    assert again.path == features.path
    assert taken(again) == taken(features)


def test_one_view_is_read_by_itself(tmp_path: Path) -> None:
    """Without the rest of its shard, and found missing where the file ends before it."""
    store = finished(str(tmp_path / "s"))
    for row in range(10):
        shard = next(number for number, rows in enumerate(store.shards) if row in rows)
        for view in range(2):
            expected = store.read_shard(shard)[row - store.shards[shard].start, view]
            assert store.read_view(row, view).tobytes() == expected.tobytes()
    chunk = tmp_path / "s" / "embedding" / "c" / "0" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-1])
    with pytest.raises(StoreError, match=r"shard 0 .* is damaged: .* ends before row 3"):
        store.read_view(3, 1)
    chunk.unlink()
    with pytest.raises(StoreError, match="is missing"):
        store.read_view(0, 0)
    with pytest.raises(IndexError):
        store.read_view(-1, 0)
