"""What a machine is like besides: its language, its terminal, its home, its folders' names."""

import os
from pathlib import Path

import pytest

from tests.command import fresh_egapipe

OLD = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TERM": "dumb"}
SERVICE = {"NO_COLOR": "1", "HOME": "/proc"}
FEW = ["--local", "--set", "dataset.train.limit=8", "--set", "dataset.test.limit=4"]


@pytest.mark.parametrize(
    ("changes", "gone"),
    [
        pytest.param(OLD, {"HOME"}, id="old terminal"),
        pytest.param(SERVICE, {"LANG"}, id="service", marks=pytest.mark.slow),
    ],
)
def test_a_store_is_made_and_read(tmp_path: Path, changes: dict[str, str], gone: set[str]) -> None:
    """Without a home, with one that cannot be written, and below a name that is no ASCII."""
    folder = tmp_path / "größe und maß 画像"
    folder.mkdir()
    kept = {name: value for name, value in os.environ.items() if name not in gone}
    for arguments in (["extract", *FEW], ["store", "info", str(folder / "stores" / "quickstart")]):
        run = fresh_egapipe(*arguments, cwd=folder, env={**kept, **changes})
        assert run.returncode == 0, run.stderr
        assert "Traceback" not in run.stderr
        assert "\x1b[" not in run.stdout + run.stderr
    assert "complete" in run.stdout
