"""Invariant 5: resuming is planned minus committed. Kill it anywhere: it ends byte-identical."""

import pickle
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.store import Failure, FeatureStore, Manifest, check_store
from egapipe.pipeline.store.format import layout
from tests.pipeline.store.conftest import forget, make_folder
from tests.pipeline.store.kill import killed_before
from tests.pipeline.store.samples import (
    complete,
    create,
    finished,
    make_arrays,
    make_digests,
    make_manifest,
    snapshot,
    write,
)

SMALL = make_manifest(rows=5, shard_rows=3, outputs={"embedding": (3,)}, images=True)


@pytest.mark.parametrize(
    "stride",
    # Each kind of step is met by every fourth; all of them take ten seconds.
    [4, pytest.param(1, marks=pytest.mark.slow)],
)
def test_killed_at_any_step_of_a_run_it_ends_byte_identical(tmp_path: Path, stride: int) -> None:
    undisturbed = snapshot(finished(str(tmp_path / "undisturbed"), SMALL))
    step, killed = 0, True
    while killed:
        url = str(tmp_path / f"{step}")
        killed = killed_before(step, lambda url=url: complete(create(url, SMALL)))
        # Sound after every death: whatever counts is whole.
        problems = check_store(url).problems
        assert all("no store at" in p or "while it was created" in p for p in problems)
        assert FeatureStore.exists(url) != bool(problems)
        assert snapshot(complete(create(url, SMALL))) == undisturbed
        step += stride
    assert step > 15


def test_killed_at_any_step_of_doing_a_shard_again_it_ends_byte_identical(tmp_path: Path) -> None:
    """The store is whole, or unfinished and resumed: never finished with another shard in it."""
    before = with_a_failure(create(str(tmp_path / "store"), SMALL))
    undisturbed = snapshot(before)
    step, killed, finished_again = 0, True, []
    while killed:
        url = str(tmp_path / f"{step}")
        shutil.copytree(before.url, url)
        killed = killed_before(step, lambda url=url: do_again(FeatureStore.open(url)))
        store = FeatureStore.open(url)
        assert check_store(url).problems == []
        assert store.complete == (layout.FINISHED in store.objects.sizes())
        finished_again.append(store.complete)
        assert snapshot(with_a_failure(store)) == undisturbed
        step += 1
    # Finished until its record is removed, and again when it is put back.
    assert (finished_again[0], finished_again[-1]) == (True, True)
    assert sum(a != b for a, b in pairwise(finished_again)) == 2
    assert step > 10


def with_a_failure(store: FeatureStore) -> FeatureStore:
    """Write what is missing; row 1 has failed."""
    for shard in store.pending():
        rows = store.shards[shard]
        failures = [Failure(1, "train/1", "damaged")] if 1 in rows else []
        arrays, images = (make(store.manifest, rows) for make in (make_arrays, make_digests))
        store.write_shard(shard, arrays, failures=failures, images=images)
    store.finish()
    return store


def do_again(store: FeatureStore) -> None:
    assert store.forget_failed() == [0]
    with_a_failure(store)


class Resuming(RuleBasedStateMachine):
    """A store that is written, killed, torn, reopened and finished in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = make_folder()
        self.url = str(self.folder / "train.zarr")

    @initialize(rows=st.integers(1, 7), shard_rows=st.integers(1, 4), views=st.integers(1, 2))
    def begin(self, rows: int, shard_rows: int, views: int) -> None:
        self.manifest: Manifest = make_manifest(rows, shard_rows, views)
        self.undisturbed = snapshot(finished(f"memory://{self.folder.name}/s", self.manifest))
        self.store = create(self.url, self.manifest)

    @rule(data=st.data())
    def write_a_shard(self, data: st.DataObject) -> None:
        planned, committed = range(len(self.store.shards)), self.store.commits()
        assert self.store.pending() == [i for i in planned if i not in committed]
        shard = data.draw(st.sampled_from(planned))
        write(self.store, shard)
        assert shard in self.store.commits()

    @rule(step=st.integers(0, 12))
    def run_and_be_killed(self, step: int) -> None:
        killed_before(step, lambda: complete(create(self.url, self.manifest)))

    @rule(data=st.data())
    def leave_part_of_an_object(self, data: st.DataObject) -> None:
        """A temporary file that was never renamed, with as much of it as was written."""
        key = data.draw(st.sampled_from(sorted(layout.planned_keys(self.manifest))))
        part = data.draw(st.binary(max_size=20))
        self.store.objects.put(f"{key}.{data.draw(st.uuids()).hex}.partial", part)

    @precondition(lambda self: self.store.pending())
    @rule(data=st.data())
    def tear_a_chunk(self, data: st.DataObject) -> None:
        """As on a file system whose writes are not atomic: the chunk itself is half written."""
        shard = data.draw(st.sampled_from(self.store.pending()))
        name = data.draw(st.sampled_from(sorted(self.manifest.outputs)))
        key = layout.chunk_key(self.manifest, name, shard)
        self.store.objects.put(key, data.draw(st.binary(max_size=20)))

    @precondition(lambda self: self.store.commits())
    @rule(data=st.data())
    def lose_a_record(self, data: st.DataObject) -> None:
        shard = data.draw(st.sampled_from(sorted(self.store.commits())))
        self.store.objects.delete(layout.commit_key(shard))
        assert shard in self.store.pending()
        assert not self.store.complete

    @precondition(lambda self: self.store.complete)
    @rule(data=st.data(), again=st.booleans())
    def an_older_egapipe_redoes_a_shard(self, data: st.DataObject, again: bool) -> None:
        """It knows no table of records, and leaves the old one where it is."""
        shard = data.draw(st.sampled_from(range(len(self.store.shards))))
        commit = self.store.commits()[shard].model_copy(update={"host": "another"})
        self.store.objects.put(layout.commit_key(shard), commit.encode())
        if again:
            failures = self.store.objects.get(layout.FAILURES) or b""
            ours = self.store.snapshot().finished_record(failures)
            self.store.objects.put(layout.FINISHED, ours.encode())
        assert not self.store.complete
        assert self.store.commits()[shard].host == "another"

    @rule()
    def reopen(self) -> None:
        self.store = FeatureStore.open(self.url)

    @rule()
    def send_to_another_process(self) -> None:
        self.store = pickle.loads(pickle.dumps(self.store))  # noqa: S301

    @rule()
    def finish(self) -> None:
        if self.store.pending():
            with pytest.raises(StoreError, match="is not complete"):
                self.store.finish()
        else:
            self.store.finish()
            assert snapshot(self.store) == self.undisturbed

    @invariant()
    def what_counts_is_whole(self) -> None:
        if hasattr(self, "store"):
            for shard in self.store.commits():
                for name in self.manifest.outputs:
                    self.store.read_shard(shard, name)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            store = complete(create(self.url, self.manifest))
            assert store.complete
            assert snapshot(store) == self.undisturbed
            assert check_store(self.url).problems == []
        forget(self.folder.name)
        shutil.rmtree(self.folder)


TestResuming = Resuming.TestCase
TestResuming.settings = settings(max_examples=15, stateful_step_count=8, deadline=None)


def test_an_interrupted_creation_says_so_and_is_continued(tmp_path: Path) -> None:
    url = str(tmp_path / "s")
    step = 0
    while not (tmp_path / "s" / "zarr.json").exists():
        assert killed_before(step, lambda: create(url))
        step += 1
    assert not FeatureStore.exists(url)
    with pytest.raises(StoreError, match="interrupted while it was created: run `egapipe extract`"):
        FeatureStore.open(url)
    with pytest.raises(StoreError, match="dtype is 'float16', the config asks for 'float32'"):
        create(url, make_manifest(dtype="float32"))
    complete(create(url))
    assert check_store(url).ok


def test_finishing_needs_every_shard(url: str) -> None:
    store = create(url)
    write(store, 0)
    with pytest.raises(StoreError, match=r"not complete \(1 of 3 shards\): run `egapipe extract`"):
        store.finish()
    with pytest.raises(StoreError, match="not complete"):
        store.content_hash()
    assert not store.complete
    assert layout.FINISHED not in store.objects.sizes()


def test_finishing_twice_changes_nothing(url: str) -> None:
    store = finished(url)
    before = snapshot(store)
    store.finish()
    assert complete(create(url)).complete
    assert snapshot(store) == before


@pytest.mark.parametrize("key", [layout.FINISHED, layout.FAILURES, layout.COMMIT_TABLE])
def test_what_is_made_of_the_records_is_made_again(url: str, key: str) -> None:
    store = finished(url)
    before = snapshot(store)
    store.objects.put(key, b"damaged")
    assert not store.complete
    (problem,) = check_store(url).problems
    assert problem.endswith("run `egapipe extract` again to finish the store anew")
    # With newer software too: no row is missing.
    newer = create(url, make_manifest(versions={"torch": "3"}))
    assert snapshot(complete(newer)) == before


def test_only_leftovers_of_the_store_itself_are_removed(url: str) -> None:
    store = create(url)
    theirs = ["notes.partial", f"notes.{'0' * 32}.partial", "embedding/c/0/0/0.partial"]
    ours = [f"{key}.{'0' * 32}.partial" for key in sorted(layout.planned_keys(store.manifest))]
    for key in theirs + ours:
        store.objects.put(key, b"part")
    complete(store)
    left = store.objects.sizes().keys() - layout.planned_keys(store.manifest)
    assert left == set(theirs)
    assert check_store(url).problems == [
        f"{key} does not belong to the store" for key in sorted(theirs)
    ]
