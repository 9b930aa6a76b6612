"""`egapipe push`."""

from typing import Annotated

import typer

from egapipe.pipeline.terminal.options import HubRepository, Private, as_place
from egapipe.pipeline.terminal.text import say


def register(app: typer.Typer) -> None:
    """Add `egapipe push`."""
    app.command()(push)


def push(
    run: Annotated[
        str,
        typer.Argument(parser=as_place, help="Run folder with an export, or the export's folder."),
    ],
    repo: HubRepository,
    private: Private = False,
) -> None:
    """Send what `egapipe export` wrote to a model repository of the Hugging Face hub.

    What is there already is not sent again: the same command continues an interrupted one.
    """
    from egapipe.stages.push import run as push_run

    done = push_run(run, repo, private=private)
    for path in done.files:
        say(f"  {path}")
    say(f"{done.sent} of {len(done.files)} files sent, the others were there: {done.url}")
