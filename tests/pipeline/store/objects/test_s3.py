"""Stores in a real object store: atomic, resumed, equal to those on a disk."""

import io
import multiprocessing
import os
import pickle
from collections.abc import Callable
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from egapipe.pipeline.store import Features, FeatureStore, check_store
from egapipe.pipeline.store.commands.diff import diff_stores
from egapipe.pipeline.store.objects.location import open_objects
from egapipe.pipeline.store.objects.remote import RemoteObjects
from tests.objectstore import S3, environment, s3, s3_server, serve_s3
from tests.pipeline.store.samples import (
    complete,
    create,
    finished,
    make_arrays,
    make_manifest,
    snapshot,
    write,
)
from tests.pipeline.store.test_command import app

__all__ = ["s3", "s3_server"]

Act = Callable[[str, dict[str, str], Event], None]

SIGKILLED = -9
SMALL = make_manifest(outputs={"embedding": (3,)}, shard_rows=8, images=True)
SHARDS = 2
# Manifest, two arrays, index, record; data, digests and record of each shard; failures, table,
# record.
WRITES = 5 + SHARDS * 3 + 3


def extract(url: str, variables: dict[str, str], go: Event) -> None:
    """What an extraction does to a store, in a process of its own."""
    go.wait()
    with environment(variables):
        complete(create(url, SMALL))


@pytest.fixture
def local(tmp_path: Path) -> FeatureStore:
    """The same store on a disk."""
    return finished(str(tmp_path / "train.zarr"), SMALL)


def command(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["store", *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_store_has_the_bytes_of_one_on_a_disk(s3: S3, local: FeatureStore) -> None:
    store = finished(s3.url("a/b/train.zarr"), SMALL)
    assert snapshot(store) == snapshot(local)
    assert sorted(s3.objects()) == [f"a/b/train.zarr/{key}" for key in sorted(snapshot(local))]
    assert diff_stores(store.url, local.url).equal


def test_each_object_is_one_put_and_nothing_is_renamed(s3: S3) -> None:
    s3.log()
    finished(s3.url(), SMALL)
    writes = [line for line in s3.log() if not line.startswith(("GET", "HEAD"))]
    assert len(writes) == len(set(writes)) == WRITES
    assert all(line.startswith("PUT ") for line in writes)
    keys = [line.partition(".zarr/")[2] for line in writes]
    assert [key for key in keys if key.startswith("commits/")][:: SHARDS + 1] == [
        "commits/created.json",
        "commits/finished.json",
    ]
    for shard in range(SHARDS):
        data, record = f"embedding/c/{shard}/0/0", f"commits/{shard:06d}.json"
        assert keys.index(data) < keys.index(record)


def test_an_object_is_read_in_one_request(s3: S3) -> None:
    """A second request could be answered with another writer's object."""
    objects = open_objects(s3.url())
    data = os.urandom(60 * 2**20)
    objects.put("large", data)
    s3.log()
    assert objects.get("large") == data
    assert objects.get("none") is None
    assert [line.partition(" ")[0] for line in s3.log()] == ["GET", "GET"]


def killed_at(s3: S3, step: int, *, after: bool, act: Act = extract) -> bool:
    """Act until the step-th request to write, or to the end; whether it was killed."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([__name__, "zarr.storage"])
    go = server.Event()
    process = server.Process(target=act, args=(s3.url(), s3.environment, go))
    process.start()
    assert process.pid is not None
    with s3.killing(process.pid, step, after=after):
        go.set()
        process.join()
    assert process.exitcode in (SIGKILLED, 0)
    return process.exitcode == SIGKILLED


def written_again(keys: set[str]) -> int:
    """How many of the objects that are there a resumed extraction writes once more."""
    if "commits/created.json" not in keys:
        return len(keys)
    done = [shard for shard in range(SHARDS) if has_record(keys, shard)]
    recorded = {chunk for n in done for chunk in (f"embedding/c/{n}/0/0", f"images/c/{n}/0")}
    return len({key for key in keys if "/c/" in key} - recorded)


def has_record(keys: set[str], shard: int) -> bool:
    return f"commits/{shard:06d}.json" in keys


def whole_objects(s3: S3) -> int:
    """How many there are; each record has the data that it vouches for."""
    keys = {key.partition("/")[2] for key in s3.objects()}
    assert all(f"embedding/c/{n}/0/0" in keys for n in range(SHARDS) if has_record(keys, n))
    if "commits/created.json" in keys:
        assert not check_store(s3.url()).problems
    return len(keys)


# Two dozen processes: a minute on two cores. A kill of a real extraction is tested with stage one.
@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_no_request_is_a_bad_moment_for_a_kill(s3: S3, local: FeatureStore, after: bool) -> None:
    found, step = [], 0
    while killed_at(s3, step, after=after):
        found.append(whole_objects(s3))
        keys = {key.partition("/")[2] for key in s3.objects()}
        step = written_again(keys) + (not after)
    assert found == list(range(after, WRITES + after))
    assert snapshot(FeatureStore.open(s3.url())) == snapshot(local)


def put_large(url: str, variables: dict[str, str], go: Event) -> None:
    go.wait()
    with environment(variables):
        open_objects(url).create_from("large", io.BytesIO(bytes(101 * 2**20)))


# It sends a hundred megabytes, six times.
@pytest.mark.slow
def test_a_large_object_goes_in_parts_that_are_seen_together_or_not_at_all(s3: S3) -> None:
    for step in range(5):
        assert killed_at(s3, step, after=True, act=put_large)
        # To begin, four parts, to end.
        assert sorted(s3.objects()) == []
    assert killed_at(s3, 5, after=True, act=put_large)
    assert len(s3.objects()["train.zarr/large"]) == 101 * 2**20


def test_commands_look_at_it(s3: S3, local: FeatureStore, tmp_path: Path) -> None:
    url = finished(s3.url("stores/quickstart/train.zarr"), SMALL).url
    finished(s3.url("stores/quickstart/test.zarr"), SMALL)
    folder = s3.url("stores")
    assert command("info", folder).count("complete") == 2
    assert command("check", folder).count("problems: 0") == 2
    assert command("diff", url, local.url).endswith("equal\n")
    before = s3.objects()
    assert command("prune", folder).count("removed 0 files") == 2
    assert s3.objects() == before
    for place, name in ((url, "s3"), (local.url, "local")):
        command("export", place, str(tmp_path / f"{name}.npy"))
        command("export", place, str(tmp_path / f"{name}.parquet"))
    assert (tmp_path / "s3.npy").read_bytes() == (tmp_path / "local.npy").read_bytes()
    tables = [pq.read_table(tmp_path / f"{name}.parquet") for name in ("s3", "local")]
    assert tables[0].equals(tables[1])


def test_damage_is_found(s3: S3) -> None:
    store = finished(s3.url(), SMALL)
    data = store.objects.get("embedding/c/1/0/0") or b""
    store.objects.put("embedding/c/1/0/0", bytes([data[0] ^ 1]) + data[1:])
    store.objects.put("notes", b"mine")
    problems = check_store(store.url).problems
    assert ["has not the recorded checksum" in problems[0], "notes" in problems[1]] == [True, True]


def test_a_server_that_is_busy_is_asked_again(s3: S3, local: FeatureStore) -> None:
    """s3fs does that: here on data, records, lists and reads."""
    store = create(s3.url(), SMALL)
    for shard in store.pending():
        s3.fail(1)
        write(store, shard)
    s3.fail(2)
    store.finish()
    assert snapshot(store) == snapshot(local)


def test_a_fork_uses_connections_of_its_own(s3: S3) -> None:
    store = create(s3.url(), SMALL)
    forks = [
        multiprocessing.get_context("fork").Process(target=write, args=(store, shard))
        for shard in (0, 1)
    ]
    for fork in forks:
        fork.start()
    for fork in forks:
        fork.join()
    assert [fork.exitcode for fork in forks] == [0, 0]
    assert not check_store(store.url).problems
    assert not store.pending()


def test_readers_go_on_when_the_server_is_gone(cache: Path, tmp_path: Path) -> None:
    """Who has opened the features, and whom such a reader is sent to."""
    with serve_s3() as server, environment(server.environment):
        server.client().create_bucket(Bucket=server.bucket)
        store = finished(server.url(), SMALL)
        server.log()
        first = Features.open(store)
        assert sum("/embedding/c/" in line for line in server.log()) == SHARDS
        again = Features.open(FeatureStore.open(server.url()))
        assert not any("/embedding/c/" in line for line in server.log())
        sent = pickle.dumps(again)
        server.stop()
        rows = np.arange(10)
        expected = make_arrays(SMALL, range(10))["embedding"][:, 1]
        for features in (first, pickle.loads(sent)):  # noqa: S301
            np.testing.assert_array_equal(
                features.take(rows, 1).numpy(), expected.astype(np.float16)
            )
    assert list(cache.rglob("*.arrow"))


def test_s3_is_a_place_for_objects_like_others(s3: S3) -> None:
    assert isinstance(open_objects(s3.url()), RemoteObjects)
    assert open_objects(s3.url() + "/").url == s3.url()
