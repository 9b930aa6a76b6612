"""How a node's copy is made: by several streams, of what is asked for, and on from where it was."""

import hashlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.queues import Queue
from pathlib import Path

import numpy as np
import pytest

from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.store import Features, FeatureStore, streams
from egapipe.pipeline.store.copies import copying, pages
from egapipe.pipeline.store.copies.selection import Selection
from tests.pipeline.store.samples import finished, make_arrays, make_manifest

FORK = multiprocessing.get_context("fork")
SHARDS = 32


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    manifest = make_manifest(rows=2 * SHARDS, shard_rows=2, view_count=3)
    return finished(str(tmp_path / "s"), manifest)


def expected(store: FeatureStore) -> np.ndarray:
    """[N, V, D]"""
    return np.concatenate([store.read_shard(shard) for shard in range(len(store.shards))])


def everything(features: Features) -> np.ndarray:
    rows = np.arange(features.rows)
    views = [features.take(rows, view).numpy() for view in range(features.view_count)]
    return np.stack(views, axis=1)


@contextmanager
def chunks_read() -> Iterator[list[str]]:
    """Paths of the chunks that this process opens in a block."""
    opened: list[str] = []
    watching = True

    def hook(event: str, args: tuple[object, ...]) -> None:
        if watching and event == "open" and "/embedding/c/" in str(args[0]):
            opened.append(str(args[0]))

    sys.addaudithook(hook)
    yield opened
    watching = False


def in_a_fork(act: Callable[[], object]) -> int:
    """How a fork ends that does it: an exit code, or minus the signal."""
    process = FORK.Process(target=act)
    process.start()
    process.join(60)
    assert process.exitcode is not None
    return process.exitcode


def die_at(chunk: int) -> None:
    """Kill this process when it opens its chunk-th chunk, after all before it were noted."""
    opened = 0

    def hook(event: str, args: tuple[object, ...]) -> None:
        nonlocal opened
        if event == "open" and "/embedding/c/" in str(args[0]):
            opened += 1
            if opened > chunk:
                os.kill(os.getpid(), signal.SIGKILL)

    copying._SETTLE_SECONDS = 0
    streams._LOCAL = 1
    sys.addaudithook(hook)


def test_what_a_killed_process_has_copied_stays(store: FeatureStore) -> None:
    def copy() -> None:
        die_at(20)
        Features.open(store)

    assert in_a_fork(copy) == -signal.SIGKILL
    with chunks_read() as opened:
        features = Features.open(store)
    # Those that were under way when it was killed may be missing.
    assert SHARDS - 20 <= len(opened) <= SHARDS - 16
    np.testing.assert_array_equal(everything(features), expected(store))
    assert features.path.read_bytes() == copied_anew(store, features)


def copied_anew(store: FeatureStore, features: Features) -> bytes:
    shutil.rmtree(features.path.parent)
    return Features.open(store).path.read_bytes()


def test_others_go_on_where_the_builder_was_killed(store: FeatureStore) -> None:
    """Three at once, of which the first two die: the last one has no more to do than the rest."""
    results: Queue[int] = FORK.Queue()

    def copy(deaths: int) -> None:
        die_at(deaths)
        with chunks_read() as opened:
            Features.open(store)
        results.put(len(opened))

    workers = [FORK.Process(target=copy, args=(n,)) for n in (10, 10, SHARDS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    # Whoever comes first to what is left may be the last one: then nothing is left for the others.
    assert workers[2].exitcode == 0
    assert results.get(timeout=10) <= SHARDS
    np.testing.assert_array_equal(everything(Features.open(store)), expected(store))


def test_an_error_keeps_what_was_copied(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_LOCAL", 1)
    last = Path(store.url, "embedding/c", str(SHARDS - 1), "0/0")
    last.rename(last.with_suffix(".gone"))
    with pytest.raises(StoreError, match="is missing: delete commits/000031"):
        Features.open(store)
    last.with_suffix(".gone").rename(last)
    with chunks_read() as opened:
        features = Features.open(store)
    assert opened == [str(last)]
    np.testing.assert_array_equal(everything(features), expected(store))


def test_what_an_older_egapipe_left_is_not_taken_up(store: FeatureStore) -> None:
    """It wrote from the beginning on, and noted nothing."""
    path = Features.open(store).path
    whole = path.read_bytes()
    for length in (0, 100, len(whole) - 1, len(whole)):
        path.unlink(missing_ok=True)
        path.with_suffix(".partial").write_bytes(b"?" * length)
        assert Features.open(store).path.read_bytes() == whole


def test_a_shard_that_is_done_again_meanwhile_is_seen(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bytes are not those of the record that the copy goes by, but nothing is damaged."""
    monkeypatch.setattr(streams, "_LOCAL", 1)
    real = store.chunks.read

    def read(commit: object, name: str) -> object:
        if commit.shard == 20 and store.commit(30) == found.commits[30]:  # type: ignore[attr-defined]
            store.objects.delete("commits/000030.json")
            arrays = make_arrays(store.manifest, store.shards[29])
            store.write_shard(30, arrays)
            store.finish()
        return real(commit, name)  # type: ignore[arg-type]

    found = store.finished()
    monkeypatch.setattr(store.chunks, "read", read)
    with pytest.raises(StoreError, match="has changed since it was opened: start again"):
        Features.open(store)
    monkeypatch.undo()
    np.testing.assert_array_equal(everything(Features.open(store)), expected(store))


@pytest.mark.parametrize("views", [[0], [2, 1], [0, 1, 2]])
def test_a_part_has_the_views_that_were_asked_for(store: FeatureStore, views: list[int]) -> None:
    with chunks_read() as opened:
        part = Features.open(store, views=views)
    assert len(opened) == SHARDS
    assert part.valid.all()
    rows, every = np.arange(part.rows), expected(store)
    for view in sorted(views):
        np.testing.assert_array_equal(part.take(rows, view).numpy(), every[rows, view])
        each = np.full(len(rows), view)
        entries = part.tensor()[part.entries(rows, each)]
        np.testing.assert_array_equal(entries.numpy(), every[rows, view])
    assert part.tensor().shape == (len(rows) * len(views), 3)
    for wrong in {0, 1, 2} - set(views):
        with pytest.raises(IndexError, match="others are not here"):
            part.take(rows, wrong)
    with pytest.raises(IndexError, match=r"row -1 is not in 0\.\.63"):
        part.take(np.array([-1]), part.views[0])


def test_a_part_takes_the_whole_copy_where_there_is_one(store: FeatureStore) -> None:
    whole = Features.open(store)
    assert Features.open(store, views=[0]).path == whole.path
    size = whole.path.stat().st_size
    shutil.rmtree(whole.path.parent)
    part = Features.open(store, views=[0])
    assert part.path != whole.path
    # Two views less of 64 rows of 3 numbers; it says what it has.
    assert size - part.path.stat().st_size > 2 * 64 * 3 * 2 - 256
    assert Features.open(store, views=[0]).path == part.path
    assert Features.open(store).path == whole.path


def test_a_part_that_is_not_there_is_refused(store: FeatureStore) -> None:
    for views in ([3], []):
        with pytest.raises(IndexError, match="are not some of"):
            Selection.of(store, views)


def test_a_part_has_the_name_that_it_always_had(store: FeatureStore) -> None:
    """What nodes have copied is found again."""
    part = Selection.of(store, [0, 2])
    assert part.metadata == {"egapipe.selection": "views 0,2 shards 0-31"}
    assert part.name == "-part" + hashlib.sha256(b"views 0,2 shards 0-31").hexdigest()[:16]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("this user may mount nothing")
    yield folder
    # What a test has mapped may not be let go yet.
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def large(tmp_path: Path) -> FeatureStore:
    """A store of 1.2 MB."""
    manifest = make_manifest(400, 50, 2, outputs={"embedding": (750,)})
    return finished(str(tmp_path / "l"), manifest)


def test_too_little_room_is_said_before_anything_is_copied(
    large: FeatureStore, small: Path
) -> None:
    with chunks_read() as opened, pytest.raises(StoreError) as refused:
        Features.open(large, cache_dir=str(small))
    assert not opened
    said = str(refused.value)
    assert said.startswith(f"the node-local copy of embedding of store {large.url} needs 1.2 MB in")
    assert f"{small}/features, where 1.0 MB are free: free some space there, or set store" in said
    assert "\n" not in said


def test_a_disk_that_others_fill_meanwhile_keeps_what_was_copied(
    large: FeatureStore, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "_require_room", lambda *_: None)
    with pytest.raises(StoreError, match=r"needs [\d.]+ kB in .*free some space there, or set"):
        Features.open(large, cache_dir=str(small))
    subprocess.run(["mount", "-o", "remount,size=2m", str(small)], check=True)
    with chunks_read() as opened:
        features = Features.open(large, cache_dir=str(small))
    assert 0 < len(opened) < 8
    np.testing.assert_array_equal(everything(features), expected(large))


def test_what_killed_builders_left_makes_room(large: FeatureStore, small: Path) -> None:
    left = small / "features" / f"{'0' * 64}-embedding.partial"
    left.parent.mkdir()
    left.write_bytes(bytes(700_000))
    Features.open(large, views=[0], cache_dir=str(small))
    assert not left.exists()


def test_a_copy_larger_than_memory_is_read_the_same(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "SHARE", 0.0)
    features = Features.open(store)
    assert features._pages.sparse
    features.read_ahead(np.arange(features.rows), 1)
    np.testing.assert_array_equal(everything(features), expected(store))
    with pytest.raises(IndexError, match="row 64 is not in"):
        features.read_ahead(np.array([64]), 0)
