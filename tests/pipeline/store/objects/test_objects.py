"""Objects at a URL: whole or absent, and every failure explained in one line."""

import errno
import io
import multiprocessing
import os
import stat
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
import zarr
from fsspec.implementations.memory import MemoryFileSystem

from egapipe.pipeline.errors import StoreError, UsageError
from egapipe.pipeline.store import FeatureStore, check_store
from egapipe.pipeline.store.objects import remote
from egapipe.pipeline.store.objects.base import unusable
from egapipe.pipeline.store.objects.local import LocalObjects
from egapipe.pipeline.store.objects.location import open_objects
from egapipe.pipeline.store.objects.remote import RemoteObjects
from tests.pipeline.store.kill import killed_before
from tests.pipeline.store.samples import create, finished, write


def test_what_is_put_is_there(url: str) -> None:
    objects = open_objects(url)
    assert objects.get("a/b") is None
    assert (objects.names(), objects.folders(), objects.sizes()) == ([], [], {})
    for key, data in {"a/b": b"1", "a/c/d": b"22", "e": b""}.items():
        objects.put(key, data)
    objects.put("e", b"333")
    assert objects.get("a/c/d") == b"22"
    assert objects.get("e/none") is None
    assert list(objects.get_many(["e", "none", "a/b"])) == [b"333", None, b"1"]
    assert objects.names() == ["a", "e"]
    assert objects.folders() == ["a"]
    assert objects.sizes() == {"a/b": 1, "a/c/d": 2, "e": 3}
    assert objects.sizes("a") == {"a/b": 1, "a/c/d": 2}
    assert objects.sizes("none") == {}
    objects.delete("e")
    objects.delete("e")
    assert objects.names() == ["a"]


def test_a_local_put_is_whole_or_absent(tmp_path: Path) -> None:
    for before, data in ((None, b"new"), (b"new", b"newer")):
        objects = LocalObjects(str(tmp_path / str(data)))
        if before is not None:
            objects.put("a/b", before)
        put, found = partial(objects.put, "a/b", data), list[bytes | None]()
        while killed_before(len(found), put):
            found.append(objects.get("a/b"))
        # The file beside its place, flushed, renamed; then the folders that name it are flushed.
        old = found.count(before)
        assert old >= 3
        assert found[old:] == [data] * (len(found) - old)


def test_what_was_put_is_flushed_with_every_folder_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a power failure could keep a record and lose its data."""
    flushed: list[int] = []
    fsync = os.fsync

    def note_and_flush(handle: int) -> None:
        flushed.append(os.fstat(handle).st_ino)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", note_and_flush)
    objects = LocalObjects(str(tmp_path / "new" / "s"))
    objects.put("a/b", b"data")
    path = tmp_path / "new" / "s" / "a" / "b"
    assert {p.stat().st_ino for p in (path, *path.parents[:4])} == set(flushed)
    file, *folders = (p.stat().st_ino for p in (path, *path.parents[:2]))
    assert flushed[flushed.index(file) :] == [file, *folders]
    # All of a shard before its record.
    write(create(str(tmp_path / "z")), 0)
    chunk = tmp_path / "z" / "logits" / "c" / "0" / "0" / "0"
    record = tmp_path / "z" / "commits" / "000000.json"
    for p in (chunk, *chunk.parents[:5]):
        assert p.stat().st_ino in flushed[: flushed.index(record.stat().st_ino)]


def test_a_file_system_that_cannot_flush_folders_is_used_nevertheless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def refuse_folders(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    finished(str(tmp_path / "s"))
    assert check_store(str(tmp_path / "s")).ok


def test_many_writers_of_one_object_leave_one_of_theirs(tmp_path: Path) -> None:
    objects = LocalObjects(str(tmp_path / "s"))
    contents = [bytes([65 + i]) * 100_000 for i in range(4)]
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=put_often, args=(objects, data)) for data in contents]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert objects.get("a/b") in [None, *contents]
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert objects.sizes() == {"a/b": 100_000}


def put_often(objects: LocalObjects, data: bytes) -> None:
    for _ in range(5):
        objects.put("a/b", data)


def test_a_failed_put_leaves_nothing(tmp_path: Path) -> None:
    objects = LocalObjects(str(tmp_path))
    (tmp_path / "a" / "b").mkdir(parents=True)
    with pytest.raises(StoreError, match=r"cannot write .*/a/b: Is a directory"):
        objects.put("a/b", b"data")
    assert os.listdir(tmp_path / "a") == ["b"]


@pytest.mark.parametrize("url", ["{}/s", "file://{}/s", "local://{}/s", "{}/./s/"])
def test_local_urls_are_one_folder(tmp_path: Path, url: str) -> None:
    objects = open_objects(url.format(tmp_path))
    assert isinstance(objects, LocalObjects)
    assert objects.url == str(tmp_path / "s")


def test_a_relative_path_and_a_home_are_made_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert open_objects("stores/s").url == str(tmp_path / "stores" / "s")
    assert open_objects("~/s").url == str(tmp_path / "home" / "s")


class InParts(io.BytesIO):
    """A file of which nobody may read everything at once."""

    def read(self, size: int | None = -1) -> bytes:
        assert size is not None
        assert 0 < size < 2**27
        return super().read(size)


@pytest.mark.parametrize("place", ["disk", "memory"])
def test_a_file_becomes_an_object_in_parts_and_once(
    place: str, tmp_path: Path, memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_WHOLE", 0)
    objects = open_objects(tmp_path / "s" if place == "disk" else memory)
    assert objects.create_from("a/b", InParts(b"12345"))
    assert objects.get("a/b") == b"12345"
    assert not objects.create_from("a/b", InParts(b"6"))
    assert objects.get("a/b") == b"12345"
    assert list(objects.sizes()) == ["a/b"]


@pytest.mark.parametrize("url", ["memory://", "memory:///"])
def test_the_root_of_a_remote_place(url: str, memory: str) -> None:
    open_objects(memory).put("k", b"1")
    folder = memory.split("/")[2]
    objects = open_objects(url)
    assert isinstance(objects, RemoteObjects)
    assert folder in objects.folders()
    assert objects.get(f"{folder}/train.zarr/k") == b"1"
    assert objects.sizes()[f"{folder}/train.zarr/k"] == 1


class RememberingMemory(MemoryFileSystem):
    """Remembers what it listed, as the clients of object stores do."""

    protocol = "remembering"
    remembered: ClassVar[dict[str, Any]] = {}

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.replace("remembering://", "memory://"))

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        if path not in self.remembered:
            self.remembered[path] = super().ls(path, detail=True, **kwargs)
        found = self.remembered[path]
        return found if detail else [entry["name"] for entry in found]

    def invalidate_cache(self, path: str | None = None) -> None:
        self.remembered.clear()


def test_what_another_process_wrote_is_seen(memory: str) -> None:
    fsspec.register_implementation("remembering", RememberingMemory, clobber=True)
    objects = open_objects(memory.replace("memory://", "remembering://"))
    objects.put("old", b"1")
    assert objects.names() == ["old"]
    MemoryFileSystem().pipe_file(memory.removeprefix("memory:/") + "/new", b"1")
    assert objects.names() == ["new", "old"]


def test_a_url_that_nothing_opens_is_a_users_mistake() -> None:
    for act in (FeatureStore.open, FeatureStore.exists, create):
        with pytest.raises(UsageError) as refused:
            act("foo://bucket/s")
        assert str(refused.value) == (
            "cannot open foo://bucket/s: Protocol not known: foo: "
            "correct store.url, or install the package that it needs"
        )


def test_a_place_that_does_not_answer_is_one_line() -> None:
    with pytest.raises(StoreError, match=r"^cannot read http://127\.0\.0\.1:9/s/[a-z]+/[^\n]+$"):
        FeatureStore.open("http://127.0.0.1:9/s")


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="a file is where a folder should be: remove it or set"):
        create(str(tmp_path / "file"))
    with pytest.raises(StoreError, match="a file is where a folder should be: remove it or set"):
        create(str(tmp_path / "file" / "s"))
    with pytest.raises(StoreError, match="no store at"):
        FeatureStore.open(str(tmp_path / "file"))
    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free some space or set another store.url, then run the same command again"),
        (errno.EDQUOT, "free some space or set another store.url, then run the same command again"),
        (errno.EACCES, "make the folder writable or set another store.url"),
        (errno.EROFS, "make the folder writable or set another store.url"),
    ],
)
def test_what_the_disk_says_comes_with_what_to_do(number: int, remedy: str) -> None:
    reason = os.strerror(number)
    error = unusable("write", "/s/k", OSError(number, reason))
    assert str(error) == f"cannot write /s/k: {reason}: {remedy}"


def test_a_folder_that_holds_something_else_is_left_alone(url: str) -> None:
    objects = open_objects(url)
    objects.put("photos/1.jpg", b"precious")
    with pytest.raises(StoreError, match=r"is not empty and no store \(it holds photos\)"):
        create(url)
    assert objects.sizes() == {"photos/1.jpg": 8}


def test_a_zarr_group_of_somebody_else_is_left_alone(url: str) -> None:
    zarr.create_group(open_objects(url).url, attributes={"theirs": 1})
    with pytest.raises(StoreError, match="is not an egapipe store: point"):
        create(url)
    with pytest.raises(StoreError, match="is not an egapipe store: point"):
        FeatureStore.open(url)


def test_a_store_without_its_first_record_is_not_created_over(url: str) -> None:
    store = finished(url)
    store.objects.delete("commits/created.json")
    before = store.objects.sizes()
    with pytest.raises(StoreError, match=r"is damaged \(commits/created\.json is missing, .* copy"):
        create(url)
    assert store.objects.sizes() == before
