"""A copy of the golden stores and runs, where a test may do with them what it likes."""

import shutil
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def golden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a copy in which the paths of golden.yaml are what they were."""
    shutil.copytree(GOLDEN, tmp_path / "golden")
    # It says nothing of the training, which was the paper's before there were recipes.
    file = tmp_path / "golden" / "golden.yaml"
    file.write_text(file.read_text().replace("distill:\n", "distill:\n  recipe: paper\n"))
    monkeypatch.chdir(tmp_path / "golden")
    monkeypatch.setenv("EGAPIPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "golden"
