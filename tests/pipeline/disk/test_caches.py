"""The registry of what is in a node's cache, and how an entry is built."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from egapipe.pipeline.disk import caches
from egapipe.pipeline.disk.caches import KINDS, PIXELS, Kind, build_once, entries, lock_of, owner
from egapipe.pipeline.disk.paths import cache_dir, use_cache
from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.store.commands.prune import prune_cache

DAY = 86_400.0
HASH, SHORT = "ab" * 32, "cd" * 16
KEYS = {
    "neighbour table": f"{HASH}-embedding-nearest5-{'ef' * 8}",
    "statistics": f"{HASH}-embedding-rotation-{'ef' * 8}",
    "anchors": f"{HASH}-embedding-anchors64-{'ef' * 8}",
    "features": f"{HASH}-embedding",
    "index": f"{HASH}-embedding-flat",
    "decoded images": SHORT,
    "student's nodes": SHORT,
    "digest": HASH,
    "tar index": HASH,
    "unpacked archive": "cifar100-03b5dce01913",
    "copy of a run elsewhere": f"run{HASH}-work",
}
STRANGE = [
    "notes.txt",
    "features/mine.arrow",
    f"features/{HASH}.arrow",
    f"features/{HASH}-embedding.arrow.bak",
    "features/killed.partial",
    f"features/deeper/{HASH}-embedding.arrow",
    "pixels/photo.npy",
    "digests/README",
    "tars/mine.parquet",
    "indexes/mine.faiss",
    "nodes/mine.npz",
    "archives/cifar-100-binary.tar.gz",
    "archives/mine-1/image.png",
    f"elsewhere/{HASH}",
]


def put(path: Path, age: float = 40 * DAY) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"four")
    then = time.time() - age
    os.utime(path, (then, then))
    return path


def put_entry(kind: Kind, root: Path, age: float = 40 * DAY) -> list[Path]:
    """An entry's files."""
    folder, key = root / kind.folder, KEYS[kind.what]
    names = [f"{key}/a/data.bin"] if kind.tree else [f"{key}{suffix}" for suffix in kind.suffixes]
    files = [put(folder / name, age) for name in names]
    if kind.tree:
        for inner in (folder / key / "a", folder / key):
            os.utime(inner, (time.time() - age,) * 2)
    return files


def files_below(root: Path) -> set[str]:
    found = (path for path in root.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {path.relative_to(root).as_posix() for path in found}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.what)
def test_every_kind_goes_by_age_unless_it_is_being_built(kind: Kind, tmp_path: Path) -> None:
    files = put_entry(kind, tmp_path)
    (entry,) = entries(tmp_path)
    assert (entry.kind, entry.key, entry.bytes) == (kind, KEYS[kind.what], 4 * len(files))
    before = sorted(tmp_path.rglob("*"))
    assert len(prune_cache(tmp_path, set(), unused=DAY, dry_run=True)) == 1
    assert sorted(tmp_path.rglob("*")) == before
    assert prune_cache(tmp_path, set(), unused=50 * DAY, dry_run=False) == []
    if kind.locked:
        with FileLock(lock_of(kind, tmp_path / kind.folder, entry.key)):
            assert prune_cache(tmp_path, set(), unused=DAY, dry_run=False) == []
    (listed,) = prune_cache(tmp_path, set(), unused=DAY, dry_run=True)
    assert listed.why == f"{kind.what}, not opened for 40.0 days"
    assert all(file.exists() for file in files)
    assert prune_cache(tmp_path, set(), unused=DAY, dry_run=False) == [listed]
    assert files_below(tmp_path) == set()


def test_what_egapipe_did_not_make_is_never_removed(tmp_path: Path) -> None:
    for name in STRANGE:
        put(tmp_path / name)
    theirs = put(tmp_path / "theirs")
    (tmp_path / "digests" / HASH).symlink_to(theirs)
    before = files_below(tmp_path)
    assert entries(tmp_path) == []
    assert prune_cache(tmp_path, set(), unused=0, dry_run=False) == []
    assert files_below(tmp_path) == before


def test_a_small_file_that_is_being_written_stays_for_an_hour(tmp_path: Path) -> None:
    """Such files are written without a lock."""
    partial = tmp_path / "digests" / f"{HASH}.{SHORT}.partial"
    put(partial, age=0)
    assert prune_cache(tmp_path, set(), unused=0, dry_run=False) == []
    put(partial, age=2 * 3600)
    (gone,) = prune_cache(tmp_path, set(), unused=0, dry_run=False)
    assert gone.why == "digest, left by a killed builder"


def test_what_is_used_is_not_old(tmp_path: Path) -> None:
    """Where the file system notes no access, too."""
    file = put(PIXELS.file(tmp_path, SHORT))
    assert build_once(PIXELS, file, file.read_bytes, pytest.fail) == b"four"
    assert file.stat().st_mtime > time.time() - DAY
    assert prune_cache(tmp_path, set(), unused=DAY, dry_run=False) == []


def known(file: Path) -> bytes | None:
    data = file.read_bytes() if file.exists() else b""
    return data if data == b"right" else None


def test_damaged_content_and_a_killed_builders_are_built_again(tmp_path: Path) -> None:
    file = put(PIXELS.file(tmp_path, SHORT), age=0)
    other = put(tmp_path / PIXELS.folder / f"{'0' * 32}.partial", age=0)
    put(file.with_suffix(".partial"), age=0)
    build_once(PIXELS, file, lambda: known(file), lambda partial: partial.write_bytes(b"right"))
    assert file.read_bytes() == b"right"
    assert not other.exists()
    assert not file.with_suffix(".partial").exists()


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    file = PIXELS.file(tmp_path, SHORT)

    def fail(partial: Path) -> None:
        partial.write_bytes(b"half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        build_once(PIXELS, file, lambda: known(file), fail)
    assert files_below(tmp_path) == set()


BUILDER = """
import sys, time
from pathlib import Path
from egapipe.pipeline.disk.caches import PIXELS, build_once
root, builds = Path(sys.argv[1]), Path(sys.argv[2])
file = PIXELS.file(root, "cd" * 16)
def build(partial):
    with builds.open("a") as log:
        log.write("x")
    partial.write_bytes(b"right")
    if sys.argv[3] == "kill":
        import os
        os.kill(os.getpid(), 9)
    time.sleep(0.3)
build_once(PIXELS, file, lambda: file.read_bytes() if file.exists() else None, build)
"""


def start(root: Path, builds: Path, how: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", BUILDER, str(root), str(builds), how])


def test_two_processes_build_once_after_one_was_killed(tmp_path: Path) -> None:
    builds = tmp_path / "builds"
    assert start(tmp_path, builds, "kill").wait(60) == -9
    assert not PIXELS.file(tmp_path, SHORT).exists()
    assert [process.wait(60) for process in [start(tmp_path, builds, "") for _ in "ab"]] == [0, 0]
    assert builds.read_text() == "xx"
    assert PIXELS.file(tmp_path, SHORT).read_bytes() == b"right"


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    file = PIXELS.file(tmp_path / "file", SHORT)
    with pytest.raises(StoreError) as caught:
        build_once(PIXELS, file, lambda: None, pytest.fail)
    assert "\n" not in str(caught.value)
    assert caught.value.args[0].endswith("set store.cache_dir or EGAPIPE_CACHE to another folder")


def test_store_cache_dir_counts_for_processes_that_are_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EGAPIPE_CACHE", str(tmp_path / "default"))
    monkeypatch.chdir(tmp_path)
    use_cache("moved")
    assert cache_dir() == tmp_path / "moved"
    code = "from egapipe.pipeline.disk.paths import cache_dir; print(cache_dir())"
    (tmp_path / "deeper").mkdir()
    said = subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path / "deeper", text=True)
    assert said.strip() == str(tmp_path / "moved")
    use_cache(None)
    assert cache_dir() == tmp_path / "default"


def test_locks_are_their_kinds() -> None:
    for kind in KINDS:
        lock = lock_of(kind, Path(kind.folder), KEYS[kind.what])
        found = owner(lock)
        assert found is not None
        assert found[0] is kind
    assert caches.owner(Path("features")) is None
