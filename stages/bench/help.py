"""`egapipe bench help`: what a command costs that only answers."""

import subprocess
import sys
from functools import partial

from egapipe.stages.bench.measure import paired

COMMANDS = (["--help"], ["config", "show"])
REPEATS = 9


def report() -> list[str]:
    """The measurement as lines of text: seconds by the clock, beside an empty Python."""
    lines = [f"  {'command':<20}{'egapipe s':>12}{'python s':>12}{'more s':>10}"]
    for arguments in COMMANDS:
        found = paired(
            partial(_run, "-m", "egapipe.pipeline.cli", *arguments),
            partial(_run, "-c", "pass"),
            repeats=REPEATS,
        )
        more = found.ours - found.reference
        line = (
            f"  {' '.join(arguments):<20}{found.ours:>12.3f}{found.reference:>12.3f}{more:>10.3f}"
        )
        lines.append(line)
    return lines


def _run(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)  # noqa: S603
