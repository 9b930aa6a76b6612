"""The node-local copy: built once, whole or absent, made again when it is damaged."""

import multiprocessing
import os
import pickle
import shutil
import sys
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from filelock import FileLock

from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.store import Features, FeatureStore
from egapipe.pipeline.store.copies.cache import map_cache
from egapipe.pipeline.store.copies.selection import Selection
from tests.pipeline.store.kill import killed_before
from tests.pipeline.store.samples import complete, finished, make_arrays, make_manifest

FORK = multiprocessing.get_context("fork")
READERS = 4


def taken(features: Features) -> np.ndarray:
    return features.take(np.arange(features.rows), 1).numpy()


def expected(store: FeatureStore) -> np.ndarray:
    arrays = make_arrays(store.manifest, range(store.manifest.rows))
    return arrays["embedding"][:, 1].astype(np.float16)


def require_right(store: FeatureStore) -> Features:
    features = Features.open(store)
    np.testing.assert_array_equal(taken(features), expected(store))
    return features


Found = tuple[int, bytes]


def open_and_count(store: FeatureStore, start: Barrier, results: "Queue[Found]") -> None:
    """How many chunks this process has opened to get its features, and what they are."""
    chunks = 0

    def hook(event: str, args: tuple[object, ...]) -> None:
        nonlocal chunks
        chunks += event == "open" and "/embedding/c/" in str(args[0])

    sys.addaudithook(hook)
    start.wait(60)
    features = Features.open(store)
    results.put((chunks, taken(features).tobytes()))


def test_several_processes_at_once_build_it_once(tmp_path: Path, cache: Path) -> None:
    store = finished(str(tmp_path / "s"), make_manifest(rows=64, shard_rows=1))
    start, results = FORK.Barrier(READERS), FORK.Queue()
    readers = [
        FORK.Process(target=open_and_count, args=(store, start, results)) for _ in range(READERS)
    ]
    for reader in readers:
        reader.start()
    found = [results.get(timeout=60) for _ in readers]
    for reader in readers:
        reader.join()
        assert reader.exitcode == 0
    assert sorted(opened for opened, _ in found) == [0] * (READERS - 1) + [64]
    assert {data for _, data in found} == {expected(store).tobytes()}
    assert sorted(path.suffix for path in (cache / "features").iterdir()) == [".arrow", ".lock"]


def test_it_is_keyed_by_content(tmp_path: Path, cache: Path) -> None:
    one = finished(str(tmp_path / "one"))
    features = Features.open(one)
    assert features.path == cache / "features" / f"{one.content_hash()}-embedding.arrow"
    # The same content elsewhere, in other shards' order, is the same copy.
    moved = complete(FeatureStore.create(f"{tmp_path}/two", one.manifest, one.index()), [2, 0, 1])
    assert Features.open(moved).path == features.path
    assert Features.open(one, "logits").path != features.path
    other = finished(str(tmp_path / "other"), make_manifest(teacher={"model": "other"}))
    assert Features.open(other).path != features.path


def test_once_built_the_shards_are_not_read_again(tmp_path: Path) -> None:
    store = finished(str(tmp_path / "s"))
    Features.open(store)
    shutil.rmtree(tmp_path / "s" / "embedding" / "c")
    require_right(store)


def test_it_is_plain_arrow(memory: str) -> None:
    store = finished(memory)
    path = Features.open(store).path
    with pa.memory_map(str(path)) as file:
        table = pa.ipc.open_file(file).read_all()
        assert table.schema.metadata[b"egapipe.content"] == store.content_hash().encode()
        assert table["valid"].to_pylist() == [True] * 10
        tensor = table["embedding"].combine_chunks().to_numpy_ndarray()
        stored = np.concatenate([store.read_shard(shard) for shard in range(3)])
        np.testing.assert_array_equal(tensor, stored)


@pytest.mark.parametrize("damage", ["empty", "shorter", "half", "garbage", "another", "folderless"])
def test_a_damaged_copy_is_made_again(memory: str, tmp_path: Path, damage: str) -> None:
    store = finished(memory)
    path = Features.open(store).path
    whole = path.read_bytes()
    other = Features.open(store, "logits").path.read_bytes()
    if damage == "folderless":
        shutil.rmtree(path.parent)
    else:
        path.write_bytes(
            {
                "empty": b"",
                "shorter": whole[:-1],
                "half": whole[: len(whole) // 2],
                "garbage": b"garbage" * 1000,
                "another": other,
            }[damage]
        )
    assert require_right(store).path == path
    assert path.read_bytes() == whole


def test_no_damage_crashes_a_reader(memory: str, tmp_path: Path) -> None:
    """A wrong length, followed blindly, would end the process: every byte is tried in a fork."""
    store = finished(memory)
    whole = Features.open(store).path.read_bytes()
    content, everything = store.content_hash(), Selection.of(store)
    path = tmp_path / "damaged.arrow"

    def try_every_byte() -> None:
        for position in range(len(whole)):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << (7 - position % 8)
            path.write_bytes(damaged)
            mapped = map_cache(store, "embedding", content, path, everything)
            if mapped is not None:
                assert mapped.values.shape == (20, 3)
                assert mapped.valid.shape == (10,)
                mapped.values.sum()

    reader = FORK.Process(target=try_every_byte)
    reader.start()
    reader.join(120)
    assert reader.exitcode == 0


def test_a_killed_builder_leaves_nothing_that_counts(tmp_path: Path, cache: Path) -> None:
    store = finished(str(tmp_path / "s"))
    step = 0
    while killed_before(step, lambda: Features.open(store)):
        assert not list(cache.glob("features/*.arrow"))
        step += 1
    assert step >= 3
    require_right(store)
    assert not list(cache.glob("features/*.partial"))


def test_partial_files_of_killed_builders_are_removed_and_of_living_ones_kept(
    memory: str, cache: Path
) -> None:
    """What may be taken up again soon stays, too."""
    store = finished(memory)
    folder = cache / "features"
    folder.mkdir(parents=True)
    killed, living, recent = (f"{digit * 64}-embedding" for digit in "012")
    for name in (killed, living, recent, f"{store.content_hash()}-embedding"):
        (folder / f"{name}.partial").write_bytes(b"part")
    for name in (killed, living):
        os.utime(folder / f"{name}.partial", (0, 0))
    with FileLock(folder / f"{living}.lock"):
        require_right(store)
        kept = sorted(path.name for path in folder.glob("*.partial"))
        assert kept == [f"{living}.partial", f"{recent}.partial"]


def test_a_damaged_shard_is_refused_and_no_copy_counts(memory: str, cache: Path) -> None:
    store = finished(memory)
    whole = store.objects.get("embedding/c/1/0/0")
    assert whole is not None
    store.objects.put("embedding/c/1/0/0", b"damaged")
    with pytest.raises(StoreError, match="has not the recorded checksum: delete commits/000001"):
        Features.open(store)
    assert not list((cache / "features").glob("*.arrow"))
    store.objects.put("embedding/c/1/0/0", whole)
    require_right(store)


def test_a_store_that_changed_on_the_way_is_refused(memory: str, cache: Path) -> None:
    """Else the copy of the new content would carry the name of the old."""
    store = finished(memory)
    sent = pickle.dumps(Features.open(store))
    shutil.rmtree(cache)
    store.objects.delete("commits/000001.json")
    store.write_shard(1, make_arrays(store.manifest, range(5, 9)))
    store.finish()
    with pytest.raises(StoreError, match="has changed since it was opened"):
        pickle.loads(sent)  # noqa: S301
    assert not list(cache.glob("features/*.arrow"))


def test_a_cache_that_cannot_be_written_says_what_to_do(memory: str, tmp_path: Path) -> None:
    store = finished(memory)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError) as refused:
        Features.open(store, cache_dir=str(tmp_path / "file"))
    said = str(refused.value)
    assert said.startswith(f"cannot write {tmp_path}/file/features/")
    assert said.endswith("set store.cache_dir or EGAPIPE_CACHE to another folder")
    assert "\n" not in said
