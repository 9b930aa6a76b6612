"""The example docs/examples/wordnet, a few pairs of it, with the texts and the teacher that this
machine has."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docs" / "examples" / "wordnet" / "run.py"
MISSING = 3


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--folder", str(folder / "work"), *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=500
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_example_runs(tmp_path: Path) -> None:
    """Slow: a transformer over 1,320 texts, and nine trainings."""
    done = run(tmp_path, "--quick")
    if done.returncode == MISSING:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    assert "| + scores, embeddings | 0." in done.stdout
    assert "| the teacher | 0." in done.stdout


@pytest.mark.slow
def test_without_texts_one_line_says_what_is_missing(tmp_path: Path) -> None:
    """Slow: it imports torch in a new process."""
    done = run(tmp_path, "--wordnet", str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (MISSING, "", 1)
    assert "apt-get install wordnet-base" in done.stderr
