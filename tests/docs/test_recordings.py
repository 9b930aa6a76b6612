"""The example docs/examples/recordings, a tenth of it, on the recordings and the teacher that this
machine has."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docs" / "examples" / "recordings" / "recordings.py"
MISSING = 3


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=500
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_example_runs(tmp_path: Path) -> None:
    """Slow: a teacher of three LSTMs, and five trainings."""
    done = run(tmp_path, "--quick")
    if done.returncode == MISSING:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stderr
    assert "train: " in done.stdout
    assert "iusp x100 " in done.stdout


@pytest.mark.slow
def test_without_recordings_one_line_says_what_is_missing(tmp_path: Path) -> None:
    """Slow: it imports torch in a new process."""
    done = run(tmp_path, "--sounds", str(tmp_path))
    assert (done.returncode, done.stdout.count("\n"), done.stderr) == (MISSING, 1, "")
    assert "apt install asterisk-core-sounds-en-wav" in done.stdout
    assert not list(tmp_path.iterdir())
