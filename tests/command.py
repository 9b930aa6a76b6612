"""The command line as a user runs it: another process, and what it printed."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

# The heading of the list, and the Jython that `copy` looks for.
NO_PACKAGES = {"imported package", "org"}
COMMAND = [sys.executable, "-m", "egapipe.pipeline.cli"]


def egapipe(
    *arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `egapipe` to its end. env: its environment; default: this process's."""
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def imported(*arguments: str) -> set[str]:
    """The packages beside the standard library that a command imports before it ends."""
    command = [sys.executable, "-X", "importtime", *COMMAND[1:], *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=240)
    names = (line.rpartition("|")[2].strip() for line in run.stderr.splitlines() if "|" in line)
    tops = {name.partition(".")[0] for name in names}
    return {
        name
        for name in tops
        if name not in sys.stdlib_module_names | NO_PACKAGES and name[:1] != "_"
    }
