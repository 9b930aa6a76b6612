import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from egapipe.pipeline.datasets.files import download
from egapipe.pipeline.datasets.files.download import fetch
from egapipe.pipeline.errors import UsageError
from tests.pipeline.datasets.web import Site, serving

CONTENT = np.random.default_rng(0).bytes(3_000_000)
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(CONTENT) as site:
        yield site


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_PAUSE_SECONDS", 0.0)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_a_file_comes_whole_and_once(site: Site, tmp_path: Path) -> None:
    for _ in range(2):
        fetch(site.url, tmp_path / "a.bin", SHA256)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert site.asked == [None]
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_both_kinds_of_checksums(site: Site, tmp_path: Path, algorithm: str) -> None:
    checksum = f"{algorithm}:{hashlib.new(algorithm, CONTENT).hexdigest()}"
    fetch(site.url, tmp_path / "a.bin", checksum)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_broken_connection_goes_on_where_it_broke(site: Site, tmp_path: Path) -> None:
    site.cut_at = [1_000_000, 500_000]
    fetch(site.url, tmp_path / "a.bin", SHA256)
    assert site.asked == [None, "bytes=1000000-", "bytes=1500000-"]
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_the_next_run_goes_on_where_this_one_gave_up(site: Site, tmp_path: Path) -> None:
    site.cut_at = [700_000, *[0] * 20]
    with pytest.raises(UsageError, match=r"cannot download .*: run it again, it goes on") as caught:
        fetch(site.url, tmp_path / "a.bin", SHA256)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["a.bin.part"]
    site.cut_at, site.asked = [], []
    fetch(site.url, tmp_path / "a.bin", SHA256)
    assert site.asked == ["bytes=700000-"]
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert names(tmp_path) == ["a.bin"]


def test_a_server_without_ranges_starts_again(site: Site, tmp_path: Path) -> None:
    site.ranges, site.cut_at = False, [1_000_000]
    fetch(site.url, tmp_path / "a.bin", SHA256)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_whole_part_is_not_asked_for_again(site: Site, tmp_path: Path) -> None:
    """A run killed between the last byte and the checksum."""
    (tmp_path / "a.bin.part").write_bytes(CONTENT)
    fetch(site.url, tmp_path / "a.bin", SHA256)
    assert site.asked == [f"bytes={len(CONTENT)}-"]
    assert names(tmp_path) == ["a.bin"]


def test_a_part_longer_than_the_file_starts_again(site: Site, tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").write_bytes(CONTENT + b"more")
    fetch(site.url, tmp_path / "a.bin", SHA256)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing(site: Site, tmp_path: Path) -> None:
    site.content = CONTENT[:-1] + b"?"
    with pytest.raises(UsageError, match=f"does not have the checksum {SHA256}, nothing of"):
        fetch(site.url, tmp_path / "a.bin", SHA256)
    assert names(tmp_path) == []


def test_a_part_of_another_version_does_not_survive(site: Site, tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").write_bytes(b"another version")
    with pytest.raises(UsageError, match="does not have the checksum"):
        fetch(site.url, tmp_path / "a.bin", SHA256)
    assert names(tmp_path) == []
    fetch(site.url, tmp_path / "a.bin", SHA256)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize(("status", "times"), [(404, 1), (403, 1), (503, 5)])
def test_what_the_server_refuses(site: Site, tmp_path: Path, status: int, times: int) -> None:
    site.status = status
    with pytest.raises(UsageError, match=rf"{status} .*put the file at .*a\.bin"):
        fetch(site.url, tmp_path / "a.bin", SHA256)
    assert len(site.asked) == times
    assert names(tmp_path) == []


def test_no_server(tmp_path: Path) -> None:
    with serving(b"") as gone:
        url = gone.url
    with pytest.raises(UsageError, match=r"cannot download http://127") as caught:
        fetch(url, tmp_path / "a.bin", SHA256)
    assert "0x" not in str(caught.value)


@pytest.mark.parametrize("url", ["no url", "gopher://127.0.0.1/a", "http://"])
def test_no_url(tmp_path: Path, url: str) -> None:
    with pytest.raises(UsageError, match="cannot download"):
        fetch(url, tmp_path / "a.bin", SHA256)


def test_a_file_brought_by_hand_is_taken(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(CONTENT)
    fetch("http://127.0.0.1:9/unreachable", tmp_path / "a.bin", SHA256)


def test_progress_is_shown(site: Site, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fetch(site.url, tmp_path / "a.bin", SHA256)
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert lines[-1]["task"] == "download a.bin"
    assert (lines[-1]["done"], lines[-1]["total"], lines[-1]["unit"]) == (3, 3, "MB")
