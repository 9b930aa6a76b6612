"""Python in a process of its own, in which egapipe cannot be imported."""

import subprocess
import sys
from pathlib import Path

WITHOUT = "import sys; sys.modules['egapipe'] = None\n"


def run_alone(code: str, cwd: Path) -> str:
    """What code prints; egapipe is nowhere to be found."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT + code],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
