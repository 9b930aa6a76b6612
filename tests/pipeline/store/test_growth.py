"""Rows appended to a finished store: killed anywhere, it is what it was or has them all."""

import pickle
import shutil
from pathlib import Path

import pytest

from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.store import Failure, FeatureStore, Manifest, check_store
from egapipe.pipeline.store.format import layout
from egapipe.pipeline.store.format.manifest import Parent
from egapipe.pipeline.store.growth import next_state
from tests.objectstore import S3, environment, s3, s3_server
from tests.pipeline.store.kill import killed_before
from tests.pipeline.store.objects.test_s3 import Event, killed_at
from tests.pipeline.store.samples import (
    complete,
    create,
    finished,
    make_arrays,
    make_digests,
    make_index,
    make_manifest,
    snapshot,
    write,
)

__all__ = ["s3", "s3_server"]

BEFORE, AFTER = 5, 8


def manifest_of(rows: int) -> Manifest:
    return make_manifest(rows=rows, shard_rows=3, outputs={"embedding": (3,)}, images=True)


def begin_append(url: str, rows: int = AFTER) -> FeatureStore:
    """As stage one does it; the store itself where it has the rows."""
    store = FeatureStore.open(url)
    if store.manifest.rows == rows:
        return store
    stored = store.manifest
    parent = Parent(rows=stored.rows, content=store.content_hash())
    grown = manifest_of(rows)
    record = grown.dataset.model_copy(update={"parent": parent})
    state = next_state(store.objects, stored.rows // stored.shard_rows)
    return FeatureStore.create(
        state, grown.model_copy(update={"dataset": record}), make_index(rows)
    )


def append(url: str, rows: int = AFTER) -> FeatureStore:
    return complete(begin_append(url, rows))


def every_state(url: str) -> list[dict[str, bytes]]:
    """What the store was, and what it is, object by object."""
    earlier = snapshot(FeatureStore.open(url, rows=BEFORE))
    own = {key: data for key, data in earlier.items() if not key.startswith(layout.APPENDED)}
    return [own, snapshot(FeatureStore.open(url))]


def look(url: str) -> int:
    """Rows of a store that somebody appends to: it is whole, with them or without."""
    store = FeatureStore.open(url)
    assert store.complete
    assert check_store(url).problems == []
    for shard in range(len(store.shards)):
        store.read_shard(shard)
    assert store.manifest.rows in (BEFORE, AFTER)
    return store.manifest.rows


@pytest.mark.parametrize(
    "stride",
    # Half a minute; one in seven meets every kind of step: shards, records, index, counts.
    [7, pytest.param(1, marks=pytest.mark.slow)],
)
def test_killed_at_any_step_of_an_append_it_is_whole_and_ends_byte_identical(
    tmp_path: Path, stride: int
) -> None:
    base = finished(str(tmp_path / "base"), manifest_of(BEFORE))
    before = snapshot(base)
    shutil.copytree(base.url, tmp_path / "undisturbed")
    undisturbed = append(str(tmp_path / "undisturbed")).url
    expected = every_state(undisturbed)
    # What it was is in it, byte for byte.
    assert {key: (Path(undisturbed) / key).read_bytes() for key in base.objects.sizes()} == {
        key: base.objects.get(key) for key in base.objects.sizes()
    }
    step, killed, rows = 0, True, []
    while killed:
        url = str(tmp_path / f"{step}")
        shutil.copytree(base.url, url)
        opened = FeatureStore.open(url)
        killed = killed_before(step, lambda url=url: append(url))
        rows.append(look(url))
        # Who had opened it reads on, and who asks for its old state has that.
        assert opened.complete
        assert every_state(url)[0] == before
        append(url)
        assert every_state(url) == expected
        assert check_store(url).problems == []
        step += stride
    assert rows == sorted(rows)
    assert {rows[0], rows[-1]} == {BEFORE, AFTER}
    assert step > 30


def test_whatever_is_wrong_with_what_was_appended_is_named_where_it_lies(tmp_path: Path) -> None:
    url = str(tmp_path / "train.zarr")
    finished(url, manifest_of(BEFORE))
    append(url)
    own = [path for path in Path(url, layout.APPENDED).rglob("*") if path.is_file()]
    assert len(own) > 10
    for file in own:
        key = file.relative_to(url).as_posix()
        # Whether rows were appended at all is what this one says.
        if key.endswith(layout.COUNTS):
            continue
        data = file.read_bytes()
        file.write_bytes(bytes([data[0] ^ 1]) + data[1:])
        (problem, *_) = check_store(url).problems
        assert key in problem, problem
        file.write_bytes(data)
    assert check_store(url).ok


def extract_appended(url: str, variables: dict[str, str], go: Event) -> None:
    """What an append does to a store, in a process of its own."""
    go.wait()
    with environment(variables):
        append(url)


# Some thirty processes: a minute on two cores.
@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_no_request_of_an_append_is_a_bad_moment_for_a_kill(
    s3: S3, tmp_path: Path, after: bool
) -> None:
    local = finished(str(tmp_path / "s"), manifest_of(BEFORE)).url
    append(local)
    store = finished(s3.url(), manifest_of(BEFORE))
    step, points, rows, killed = 0, 0, [], True
    while killed:
        for key in s3.objects():
            inner = key.partition("/")[2]
            if inner.startswith(layout.APPENDED):
                store.objects.delete(inner)
        killed = killed_at(s3, step, after=after, act=extract_appended)
        points += killed
        rows.append(look(s3.url()))
        append(s3.url())
        assert every_state(s3.url()) == every_state(local)
        step += 1
    # Manifest, two arrays, index, record; two arrays and record of two shards; two tables, record;
    # and that it counts.
    assert points == 5 + 2 * 3 + 3 + 1
    assert rows == sorted(rows)
    assert {rows[0], rows[-1]} == {BEFORE, AFTER}


def test_it_grows_again_and_again_anywhere(url: str) -> None:
    """Also from less than a shard."""
    finished(url, manifest_of(2))
    for rows in (3, 4, 9, 10):
        before = FeatureStore.open(url).content_hash()
        store = append(url, rows)
        parent = store.manifest.dataset.parent
        assert parent is not None
        assert parent.content == before
        assert check_store(url).problems == []
        same = pickle.loads(pickle.dumps(FeatureStore.open(url)))  # noqa: S301
        assert same.content_hash() == store.content_hash()
    at_once = finished(f"{url}-once", manifest_of(10))
    for shard in range(4):
        assert store.read_shard(shard).tobytes() == at_once.read_shard(shard).tobytes()
        assert store.commits()[shard].sha256 == at_once.commits()[shard].sha256
    assert store.snapshot().images_root() == at_once.snapshot().images_root()
    assert [FeatureStore.open(url, rows).manifest.rows for rows in (2, 3, 4, 9, 10, 7)] == [
        *(2, 3, 4, 9, 10),
        10,
    ]


def test_two_that_append_at_once_make_one_store(url: str) -> None:
    finished(url, manifest_of(BEFORE))
    one, other = begin_append(url), begin_append(url)
    write(one, 2)
    write(other, 1)
    assert look(url) == BEFORE
    with pytest.raises(StoreError, match=r"is another one: dataset\.rows is 8"):
        begin_append(url, 9)
    complete(one)
    # It was slower, and undoes nothing that came after.
    append(url, 9)
    complete(other)
    assert FeatureStore.open(url).manifest.rows == 9
    assert check_store(url).problems == []


def test_a_shard_that_is_done_again_is_done_where_it_lies(url: str) -> None:
    base = finished(url, manifest_of(7))
    store = append(url)
    state = snapshot(store)
    for shard in (0, 2):
        key = layout.commit_key(shard)
        assert store.objects.located(key) == (key if shard < 2 else f"appended/000001/{key}")
        base.objects.delete(store.objects.located(key))
        assert FeatureStore.open(url).pending() == [shard]
        complete(FeatureStore.open(url))
        assert snapshot(FeatureStore.open(url)) == state
        assert base.complete
        assert check_store(url).problems == []


def test_failures_of_what_it_was_are_not_retried(url: str) -> None:
    """They are of a state that others have learned from."""
    base = finished(url, manifest_of(BEFORE))
    store = begin_append(url)
    for shard in store.pending():
        rows = store.shards[shard]
        failed = [Failure(rows.start, f"train/{rows.start}", "damaged")]
        arrays, images = make_arrays(store.manifest, rows), make_digests(store.manifest, rows)
        store.write_shard(shard, arrays, failures=failed, images=images)
    store.finish()
    assert base.complete
    assert FeatureStore.open(url).forget_failed() == [1, 2]
    assert base.complete


def test_damage_of_any_state_is_found(url: str) -> None:
    base = finished(url, manifest_of(BEFORE))
    store = append(url)
    for place, key in (
        (base, "embedding/c/0/0/0"),
        (base, "embedding/c/1/0/0"),
        (store, "images/c/2/0"),
    ):
        data = place.objects.get(key) or b""
        place.objects.put(key, bytes([data[0] ^ 1]) + data[1:])
        problems = check_store(url).problems
        assert problems
        assert all(f"{key} has not the recorded checksum" in p or "finished" in p for p in problems)
        place.objects.put(key, data)
    base.objects.put(layout.appended_key(1), b"{}")
    assert "is damaged" in check_store(url).problems[0]
    base.objects.put("appended/notes", b"mine")
    base.objects.delete(layout.appended_key(1))
    assert check_store(url).problems == ["appended/notes does not belong to the store"]


def test_a_store_that_is_no_continuation_of_what_it_names_is_found(tmp_path: Path) -> None:
    url = str(tmp_path / "s")
    finished(url, manifest_of(BEFORE))
    append(url)
    other = create(str(tmp_path / "t"), manifest_of(BEFORE))
    for shard, rows in enumerate(other.shards):
        arrays = {n: a + (shard == 1) for n, a in make_arrays(other.manifest, rows).items()}
        other.write_shard(shard, arrays, images=make_digests(other.manifest, rows))
    other.finish()
    for key in other.objects.sizes():
        (Path(url) / key).write_bytes((Path(other.url) / key).read_bytes())
    said = "the rows before those that were appended are not those that the manifest names"
    assert said in check_store(url).problems
