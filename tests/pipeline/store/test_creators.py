"""Several extractions create a store at once: one of them makes it, whatever the others ask."""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fsspec.core import url_to_fs

from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.locations.buckets import CLIENT
from egapipe.pipeline.locations.trouble import exists_already, is_unconditional
from egapipe.pipeline.store import FeatureStore, Manifest, check_store
from egapipe.pipeline.store.objects.location import open_objects
from tests.objectstore import S3, s3, s3_server
from tests.pipeline.store.samples import complete, make_index, make_manifest

__all__ = ["s3", "s3_server"]

ONE = make_manifest(outputs={"embedding": (3,)})
# Each differs from ONE, and from each other, in what its objects hold.
OTHERS = [
    make_manifest(outputs={"embedding": (4,)}),
    make_manifest(outputs={"embedding": (3,)}, teacher={"model": "resnet", "sha256": "b" * 64}),
    make_manifest(outputs={"logits": (3,)}),
    make_manifest(rows=12, outputs={"embedding": (3,)}),
]
# What describes a store, and is no part of what it is.
RENAMED = make_manifest(
    outputs={"embedding": (3,)},
    dataset={"name": "elsewhere", "fingerprint": "f" * 64, "rows": 10},
    versions={"torch": "2.14"},
)


@pytest.fixture
def eager() -> Iterator[None]:
    """Threads that take turns within a call."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def race(url: str, manifests: list[Manifest]) -> list[FeatureStore | Exception]:
    """What each creator of a store at one URL comes to."""
    barrier = threading.Barrier(len(manifests))
    results: list[FeatureStore | Exception] = [ValueError()] * len(manifests)

    def make(place: int) -> None:
        manifest = manifests[place]
        barrier.wait()
        try:
            results[place] = FeatureStore.create(url, manifest, make_index(manifest.rows))
        except Exception as error:
            results[place] = error

    threads = [threading.Thread(target=make, args=(place,)) for place in range(len(manifests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def check_race(
    url: str, manifests: list[Manifest], results: list[FeatureStore | Exception]
) -> None:
    """Whoever has a store has the one that is there; the others were told what it is."""
    there = FeatureStore.open(url).manifest
    for manifest, result in zip(manifests, results, strict=True):
        if isinstance(result, FeatureStore):
            assert result.manifest == there
            assert not there.differences(manifest)
        else:
            assert isinstance(result, StoreError), result
            assert "is another one: " in str(result)
            assert there.differences(manifest)
    assert any(isinstance(result, FeatureStore) for result in results)
    complete(FeatureStore.open(url))
    assert check_store(url).problems == []


@pytest.mark.parametrize("other", range(len(OTHERS)))
def test_two_creators_of_different_stores(tmp_path: Path, eager: None, other: int) -> None:
    for number in range(8):
        url, manifests = str(tmp_path / f"{number}.zarr"), [ONE, OTHERS[other]]
        results = race(url, manifests)
        check_race(url, manifests, results)
        assert sum(isinstance(result, FeatureStore) for result in results) == 1


def test_creators_of_one_store_all_have_it(tmp_path: Path, eager: None) -> None:
    """Where one calls it something else, or has other software, it takes it up as it is."""
    for number in range(8):
        url, manifests = str(tmp_path / f"{number}.zarr"), [ONE, RENAMED, ONE, RENAMED]
        results = race(url, manifests)
        check_race(url, manifests, results)
        assert all(isinstance(result, FeatureStore) for result in results)


def test_creators_in_an_object_store(s3: S3) -> None:
    for number in range(3):
        url, manifests = s3.url(f"{number}.zarr"), [ONE, OTHERS[0], RENAMED, OTHERS[2]]
        check_race(url, manifests, race(url, manifests))


@pytest.mark.parametrize("where", ["local", "memory", "s3"])
def test_an_object_is_created_once(tmp_path: Path, memory: str, s3: S3, where: str) -> None:
    urls = {"local": str(tmp_path / "store"), "memory": memory, "s3": s3.url("store")}
    objects = open_objects(urls[where])
    assert objects.create("a/b", b"one")
    assert not objects.create("a/b", b"two")
    assert objects.get("a/b") == b"one"
    assert objects.sizes() == {"a/b": 3}


def test_a_file_system_without_links_creates_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("egapipe.pipeline.disk.files.os.link", refuse)
    objects = open_objects(str(tmp_path))
    assert objects.create("a", b"one")
    assert not objects.create("a", b"two")
    assert objects.sizes() == {"a": 3}


class AnsweredError(Exception):
    """As botocore raises it; s3fs raises others of its own from it."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.response = {"Error": {"Code": code}}


def test_what_a_server_answers_to_a_conditional_put() -> None:
    for code in ("PreconditionFailed", "ConditionalRequestConflict"):
        wrapped = OSError(5, "an error")
        wrapped.__cause__ = AnsweredError(code)
        assert exists_already(AnsweredError(code))
        assert exists_already(wrapped)
        assert not is_unconditional(wrapped)
    assert is_unconditional(AnsweredError("NotImplemented"))
    assert not is_unconditional(AnsweredError("AccessDenied"))
    assert not exists_already(OSError(5, "an error"))


def test_a_server_without_conditions_is_asked_whether_there_is_one(
    s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As servers in the manner of S3 were for long."""
    monkeypatch.setenv(CLIENT, "fsspec")
    objects = open_objects(s3.url("store"))
    # fsspec has one of them a process.
    system, _ = url_to_fs(objects.url, max_concurrency=1)
    put, refused = system.pipe_file, []

    def older(path: str, data: bytes, mode: str = "overwrite") -> None:
        if mode == "create":
            refused.append(path)
            raise OSError(22, "no such header") from AnsweredError("NotImplemented")
        put(path, data)

    monkeypatch.setattr(system, "pipe_file", older)
    assert objects.create("a", b"one")
    assert not objects.create("a", b"two")
    assert objects.get("a") == b"one"
    assert len(refused) == 2
