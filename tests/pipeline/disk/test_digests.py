import errno
import logging
import os
import time
from pathlib import Path

import pytest

from egapipe.pipeline.disk import remembered
from egapipe.pipeline.disk.digests import cached_digest
from egapipe.pipeline.disk.paths import cache_dir

OLD = 1_600_000_000


class Counting:
    """A digest that tells how often it was computed."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        return f"{self.calls:064x}"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settled: None) -> Path:
    monkeypatch.setenv("EGAPIPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(b"content")
    os.utime(path, (OLD, OLD))
    return path


def entry() -> Path:
    (path,) = (cache_dir() / "digests").iterdir()
    return path


def test_it_is_computed_once(file: Path) -> None:
    compute = Counting()
    assert cached_digest([file], "", compute) == cached_digest([file], "", compute)
    assert compute.calls == 1
    assert [p.name for p in (cache_dir() / "digests").iterdir()] == [entry().name]


def test_a_relative_path_is_the_same_file(file: Path, monkeypatch) -> None:
    compute = Counting()
    cached_digest([file], "", compute)
    monkeypatch.chdir(file.parent)
    cached_digest([Path(file.name)], "", compute)
    assert compute.calls == 1


@pytest.mark.parametrize(
    "change", ["size", "time", "content", "renamed", "name", "extra", "more", "gone"]
)
def test_any_change_computes_it_again(file: Path, change: str) -> None:
    compute = Counting()
    cached_digest([file], "", compute)
    files, extra = [file], ""
    if change == "size":
        file.write_bytes(b"another content")
        os.utime(file, (OLD, OLD))
    elif change == "content":
        # Of the same size and date, as `cp -a` leaves it.
        file.write_bytes(b"CONTENT")
        os.utime(file, (OLD, OLD))
    elif change == "renamed":
        other = file.with_name("other")
        other.write_bytes(b"CONTENT")
        os.utime(other, (OLD, OLD))
        other.replace(file)
    elif change == "time":
        os.utime(file, ns=(OLD * 10**9, OLD * 10**9 + 1))
    elif change == "name":
        files = [file.rename(file.with_name("other"))]
    elif change == "extra":
        extra = "method 2"
    elif change == "more":
        files = [file, file]
    else:
        file.unlink()
    assert cached_digest(files, extra, compute) == f"{2:064x}"


def test_a_file_that_was_just_written_is_not_remembered(file: Path, monkeypatch) -> None:
    """Within the clock's step it could change again and keep size and time."""
    monkeypatch.setattr(remembered, "SETTLED_SECONDS", 60.0)
    compute = Counting()
    cached_digest([file], "", compute)
    cached_digest([file], "", compute)
    assert compute.calls == 2


def test_a_date_in_the_future_does_not_matter(file: Path) -> None:
    os.utime(file, (2 * OLD, 2 * OLD))
    compute = Counting()
    assert cached_digest([file], "", compute) == cached_digest([file], "", compute)
    assert compute.calls == 1


def test_a_clock_behind_the_files_is_said(file: Path, monkeypatch, caplog) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 7200)
    compute = Counting()
    for _ in range(2):
        cached_digest([file], "", compute)
    assert compute.calls == 2
    assert f"{file} was changed in the future" in caplog.text


def test_a_file_that_changes_meanwhile_is_not_remembered(file: Path) -> None:
    def compute() -> str:
        file.write_bytes(b"another content")
        return "a" * 64

    cached_digest([file], "", compute)
    assert not (cache_dir() / "digests").exists()


def test_a_state_that_cannot_be_read_is_no_missing_file(file: Path, monkeypatch) -> None:
    """What failed once (a stale handle of a file server, say) may be another file tomorrow."""
    real = os.stat

    def stale(path: object, **options: object) -> os.stat_result:
        if path == str(file):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return real(path, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", stale)
        assert cached_digest([file], "", lambda: "a" * 64) == "a" * 64
    assert not (cache_dir() / "digests").exists()


@pytest.mark.parametrize("damage", [b"", b"cafe", b"\xff" * 64, b"g" * 64, b"0" * 65])
def test_a_damaged_entry_is_computed_again(file: Path, damage: bytes) -> None:
    compute = Counting()
    cached_digest([file], "", compute)
    entry().write_bytes(damage)
    assert cached_digest([file], "", compute) == f"{2:064x}"
    assert cached_digest([file], "", compute) == f"{2:064x}"


def test_a_cache_that_cannot_be_written_costs_only_time(file: Path, cache: Path, caplog) -> None:
    cache.write_text("a file where the folder should be")
    compute = Counting()
    with caplog.at_level(logging.WARNING):
        assert cached_digest([file], "", compute) == f"{1:064x}"
    assert "is not remembered" in caplog.text


def test_what_compute_raises_is_not_remembered(file: Path) -> None:
    def fail() -> str:
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        cached_digest([file], "", fail)
    assert cached_digest([file], "", Counting()) == f"{1:064x}"


def test_the_cache_folder(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EGAPIPE_CACHE", "~/there")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "there"
    for unset in ("", None):
        if unset is None:
            monkeypatch.delenv("EGAPIPE_CACHE")
        else:
            monkeypatch.setenv("EGAPIPE_CACHE", unset)
        assert cache_dir() == tmp_path / ".cache" / "egapipe"
    monkeypatch.setenv("EGAPIPE_CACHE", "relative")
    monkeypatch.chdir(tmp_path)
    assert cache_dir() == tmp_path / "relative"
