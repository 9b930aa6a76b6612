"""`egapipe report`."""

from pathlib import Path
from typing import Annotated

import typer

from egapipe.pipeline.terminal.options import TrustRemoteCode, as_path, as_place
from egapipe.pipeline.terminal.text import say


def register(app: typer.Typer) -> None:
    """Add `egapipe report`."""
    app.command()(report)


def report(
    path: Annotated[
        str,
        typer.Argument(parser=as_place, help="Folder of a run, comparison or sweep, or of many."),
    ],
    to: Annotated[
        Path | None,
        typer.Option(parser=as_path, help="Folder to write into; default: the folder itself."),
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Write one self-contained HTML page, and its figures as PNG files."""
    from egapipe.stages.report import run

    written = run(path, to=to, trust_remote_code=trust_remote_code)
    if written.pictures:
        say(f"{len(written.pictures)} figures: {written.pictures[0].parent}")
    say(f"report: {written.where}")
