"""The command line as a user runs it: another process, and what it printed."""

import resource
import subprocess
import sys
from pathlib import Path

COMMAND = [sys.executable, "-m", "egapipe.pipeline.cli"]


def egapipe(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `egapipe` to its end."""
    return subprocess.run(
        [*COMMAND, *arguments], cwd=cwd, capture_output=True, text=True, check=False, timeout=240
    )


def processor_seconds(*arguments: str) -> float:
    """Of a command, user and system: unlike time by the clock it is not that of other processes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert egapipe(*arguments).returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
