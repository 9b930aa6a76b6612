"""A copy of the golden stores and runs, where a test may do with them what it likes."""

import shutil
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def golden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a copy in which the paths of golden.yaml are what they were."""
    shutil.copytree(GOLDEN, tmp_path / "golden")
    monkeypatch.chdir(tmp_path / "golden")
    monkeypatch.setenv("EGAPIPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "golden"
