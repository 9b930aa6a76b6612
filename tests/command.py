"""The command line as a user runs it: another process, and what it printed."""

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO

import typer
from typer.testing import CliRunner, Result

from egapipe.pipeline.cli import COMMANDS
from tests import warm

# The heading of the list, and the Jython that `copy` looks for.
NO_PACKAGES = {"imported package", "org"}
MODULE = "egapipe.pipeline.cli"
COMMAND = [sys.executable, "-m", MODULE]
SECONDS = 240

Ended = subprocess.CompletedProcess[str]


def start(*arguments: str, cwd: Path | None = None, **files: IO[bytes]) -> warm.Process:
    """Start `egapipe` in a process that has its libraries already (`tests.warm`).

    files: `stdout` and `stderr`; default: what it prints is thrown away.
    """
    return warm.Process(MODULE, arguments, cwd=cwd, **files)


def egapipe(*arguments: str, cwd: Path | None = None) -> Ended:
    """Run `egapipe` to its end, in such a process."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = start(*arguments, cwd=cwd, stdout=out, stderr=err)
        try:
            code = process.wait(SECONDS)
        finally:
            process.kill()
        printed = []
        for file in (out, err):
            file.seek(0)
            printed.append(file.read().decode())
    return subprocess.CompletedProcess([MODULE, *arguments], code, *printed)


def fresh_egapipe(
    *arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> Ended:
    """Run `egapipe` to its end in a new interpreter. env: its environment; default: this one's."""
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )


def invoke(*arguments: str) -> Result:
    """`egapipe` in this process; an error of one line is the result's `exception`."""
    return CliRunner().invoke(_assembled(), arguments)


@cache
def _assembled() -> typer.Typer:
    app = typer.Typer()
    for name in COMMANDS:
        import_module(name).register(app)
    return app


def imported(*arguments: str) -> set[str]:
    """The packages beside the standard library that a command imports before it ends."""
    command = [sys.executable, "-X", "importtime", *COMMAND[1:], *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    names = (line.rpartition("|")[2].strip() for line in run.stderr.splitlines() if "|" in line)
    tops = {name.partition(".")[0] for name in names}
    return {
        name
        for name in tops
        if name not in sys.stdlib_module_names | NO_PACKAGES and name[:1] != "_"
    }
