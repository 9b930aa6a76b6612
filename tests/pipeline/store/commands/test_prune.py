"""`egapipe store prune`: leftovers go, data stays."""

import os
import time
import uuid
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from typer.testing import CliRunner, Result

from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.store import Features, check_store
from egapipe.pipeline.store.commands.prune import prune_cache, prune_store
from tests.permissions import unprivileged
from tests.pipeline.store.samples import create, finished, make_manifest, snapshot, write
from tests.pipeline.store.test_command import app

HOUR, DAY = 3600.0, 86_400.0


def leave(path: Path, age: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"half")
    return back_date(path, age)


def back_date(path: Path, age: float) -> Path:
    then = time.time() - age
    os.utime(path, (then, then))
    return path


def leftover(store: Path, key: str, age: float = 2 * HOUR) -> Path:
    return leave(store / f"{key}.{uuid.uuid4().hex}.partial", age)


def prune(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["store", "prune", *arguments])


def test_leftovers_of_dead_writers_go_and_all_else_stays(tmp_path: Path) -> None:
    store = create(str(tmp_path / "train.zarr"))
    write(store, 0)
    # A chunk without a record: a resumed extraction writes it again.
    store.objects.put("embedding/c/1/0/0", b"uncommitted")
    before = snapshot(store)
    root = tmp_path / "train.zarr"
    dead = [leftover(root, key) for key in ("commits/000001.json", "embedding/c/2/0/0")]
    alive = leftover(root, "embedding/c/2/0/0", age=0)
    strange = leave(root / "notes.partial", 9 * HOUR)
    found = prune_store(store.url, idle=HOUR, dry_run=False)
    assert sorted(pruned.where for pruned in found) == sorted(map(str, dead))
    assert [pruned.bytes for pruned in found] == [4, 4]
    for path in (alive, strange):
        path.unlink()
    assert snapshot(store) == before


def test_a_dry_run_lists_and_removes_nothing(tmp_path: Path) -> None:
    store = finished(str(tmp_path / "train.zarr"))
    left = leftover(tmp_path / "train.zarr", "failures.parquet")
    for _ in range(2):
        shown = prune(str(tmp_path), "--dry-run")
        assert shown.exit_code == 0
        total, listed = shown.stdout.splitlines()
        assert total == f"{store.url}: would remove 1 files, 4 bytes"
        assert listed == f"  {left}  4 bytes  left by a killed writer"
    assert not check_store(store.url).ok
    assert prune(str(tmp_path)).stdout.startswith(f"{store.url}: removed 1 files, 4 bytes\n")
    assert check_store(store.url).ok


def test_what_was_copied_to_a_remote_place_goes_too(memory: str) -> None:
    """No writer there has temporary files, so these are of no living one."""
    store = finished(memory)
    store.objects.put(f"zarr.json.{uuid.uuid4().hex}.partial", b"half")
    (found,) = prune_store(memory, idle=HOUR, dry_run=False)
    assert found.where.startswith(f"{memory}/zarr.json.")
    assert check_store(memory).ok


def test_old_copies_go_unless_their_store_is_there(tmp_path: Path, cache: Path) -> None:
    kept = Features.open(finished(str(tmp_path / "stores" / "a.zarr")))
    changed = make_manifest(teacher={"model": "other", "sha256": "b" * 64})
    gone = Features.open(finished(str(tmp_path / "elsewhere.zarr"), changed))
    recent = make_manifest(teacher={"model": "third", "sha256": "c" * 64})
    fresh = Features.open(finished(str(tmp_path / "another.zarr"), recent))
    for features in (kept, gone):
        back_date(features.path, 40 * DAY)
    partial = leave(cache / "features" / f"{'0' * 64}-embedding.partial", 0)
    shown = prune(str(tmp_path / "stores"), "--cache", str(cache))
    assert shown.exit_code == 0
    in_store, in_cache, first, second = shown.stdout.splitlines()
    assert in_store.endswith("a.zarr: removed 0 files, 0 bytes")
    assert in_cache.startswith(f"{cache}: removed 2 files")
    assert first == f"  {partial}  4 bytes  features, left by a killed builder"
    assert second.startswith(f"  {gone.path}")
    assert second.endswith("not opened for 40.0 days")
    assert kept.path.exists()
    assert fresh.path.exists()
    # Who has it mapped reads on; who asks anew gets it built again.
    rows = np.arange(4)
    again = Features.open(finished(str(tmp_path / "elsewhere.zarr"), changed))
    assert np.array_equal(gone.take(rows, 0).numpy(), again.take(rows, 0).numpy())


def test_a_copy_that_is_being_built_stays(cache: Path) -> None:
    partial = leave(cache / "features" / f"{'0' * 64}-embedding.partial", 9 * DAY)
    with FileLock(partial.with_suffix(".lock")):
        for dry_run in (True, False):
            assert prune_cache(cache, set(), unused=0, dry_run=dry_run) == []
        assert partial.exists()
    assert len(prune_cache(cache, set(), unused=0, dry_run=True)) == 1
    assert partial.exists()
    assert len(prune_cache(cache, set(), unused=0, dry_run=False)) == 1
    assert not partial.exists()


def test_what_cannot_be_removed_is_said_and_the_rest_goes(tmp_path: Path, cache: Path) -> None:
    stores = tmp_path / "stores"
    for name in "abc":
        finished(str(stores / f"{name}.zarr"))
    kept, gone = (leftover(stores / f"{name}.zarr", "failures.parquet") for name in "ac")
    (stores / "b.zarr" / "zarr.json").write_bytes(b"{}")
    stays, goes, hidden = (
        leave(cache / kind / f"{'0' * 32}.partial", 9 * DAY) for kind in ("nodes", "pixels", "tars")
    )
    assert prune(str(stores), "--dry-run").exit_code == 1
    for folder, mode in ((gone.parent, 0o777), (goes.parent, 0o777), (hidden.parent, 0)):
        folder.chmod(mode)
    with unprivileged(tmp_path):
        shown = prune(str(stores))
        found = prune_cache(cache, set(), unused=0, dry_run=False)
    hidden.parent.chmod(0o700)
    assert [path.exists() for path in (kept, gone, stays, goes)] == [True, False, True, False]
    assert shown.exit_code == 1
    assert [line.split(": ")[1] for line in shown.stderr.splitlines()] == [
        f"cannot delete {stores}/a.zarr/{kept.name}",
        f"{stores}/b.zarr/zarr.json has not the recorded checksum",
    ]
    said = [str(one).partition(":")[0] for one in found if isinstance(one, StoreError)]
    assert said == [f"cannot remove {stays}", f"cannot list {hidden.parent}"]


def test_a_store_that_cannot_be_opened_is_not_touched(tmp_path: Path) -> None:
    store = create(str(tmp_path / "train.zarr"))
    left = leftover(tmp_path / "train.zarr", "zarr.json")
    store.objects.delete("commits/created.json")
    with pytest.raises(StoreError, match="interrupted while it was created"):
        prune_store(store.url, idle=HOUR, dry_run=False)
    assert left.exists()
