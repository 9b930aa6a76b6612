"""The image itself is its own nearest neighbour, in teacher and in student space."""

import json
from pathlib import Path

import pytest

from egapipe.pipeline.config import Config, load_config
from egapipe.pipeline.config.data import DigitsSource
from egapipe.pipeline.datasets import open_dataset
from egapipe.pipeline.errors import UsageError
from egapipe.stages import index
from tests.command import egapipe


@pytest.fixture
def config(digits_store: str) -> Config:
    return load_config("quickstart", [f"store.url={digits_store}", "views.count=2"])


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Rows 5 and 900 of the training digits as PNG files."""
    folder = tmp_path_factory.mktemp("photos")
    digits = open_dataset(DigitsSource(kind="digits", split="train"))
    for row in (5, 900):
        digits.image(row).save(folder / f"{row}.png")
    return [folder / "5.png", folder / "900.png"]


def test_in_teacher_space(config: Config, photos: list[Path]) -> None:
    found = index.neighbours(config, photos, k=5)
    assert [near[0].row for near in found.values()] == [5, 900]
    keys = open_dataset(config.dataset.train).keys
    for near in found.values():
        assert near[0].cosine == pytest.approx(1.0, abs=1e-3)
        assert [n.key for n in near] == [keys[n.row] for n in near]
        assert len(near) == 5


def test_in_student_space_images_are_embedded_once(
    config: Config,
    finished: Path,
    photos: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EGAPIPE_CACHE", str(tmp_path))
    first = index.neighbours(config, photos, k=3, run=finished)
    assert [near[0].row for near in first.values()] == [5, 900]
    [file] = (tmp_path / "nodes").glob("*.npz")
    written = file.stat().st_mtime_ns
    assert index.neighbours(config, photos, k=3, run=finished) == first
    assert file.stat().st_mtime_ns == written


def test_bad_input_is_one_line(config: Config, photos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"")
    with pytest.raises(UsageError, match=r"bad\.png: the file is empty"):
        index.neighbours(config, [tmp_path / "bad.png"])
    with pytest.raises(UsageError, match="at least one neighbour"):
        index.neighbours(config, photos, k=0)


def test_the_command_prints_json(digits_store: str, photos: list[Path]) -> None:
    sets = ["--set", f"store.url={digits_store}", "--set", "views.count=2"]
    done = egapipe("neighbours", str(photos[0]), *sets, "-k", "2", "--split", "test", "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["path"] == str(photos[0])
    assert len(record["neighbours"]) == 2
