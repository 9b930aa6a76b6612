"""`egapipe store push` and `store pull`."""

from pathlib import Path
from typing import Annotated

import typer

from egapipe.pipeline.store.command import Url, app, bar
from egapipe.pipeline.terminal.options import HubRepository, Private, as_path
from egapipe.pipeline.terminal.text import say


def register(root: typer.Typer) -> None:
    """Add them to `egapipe store`."""
    del root
    app.command()(push)
    app.command()(pull)


def push(url: Url, repo: HubRepository, private: Private = False) -> None:
    """Send stores to a data set repository of the Hugging Face hub.

    What is there already is not sent again: the same command continues an interrupted one.
    """
    from egapipe.pipeline.locations.hub import Repository
    from egapipe.pipeline.store.commands.hub import push_stores

    with bar("sending") as told:
        done = push_stores(url, Repository(repo, "dataset"), private=private, told=told)
    for store in done.stores:
        say(f"store: {store or 'at the top'}")
    say(f"{done.sent:,} of {done.files:,} files sent, the others were there: {done.url}")


def pull(
    repo: Annotated[str, typer.Argument(help="Repository of the hub, `user/name`.")],
    folder: Annotated[Path, typer.Argument(parser=as_path, help="A new folder.")],
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit; default: the newest.")
    ] = None,
) -> None:
    """Bring stores from a data set repository of the Hugging Face hub, and check them.

    The same command continues an interrupted one; the folder appears when all is there and right.
    """
    from egapipe.pipeline.locations.hub import Repository
    from egapipe.pipeline.store.commands.hub import pull_stores

    with bar("bringing") as told:
        done = pull_stores(Repository(repo, "dataset", revision), folder, told=told)
    for report in done.reports:
        say(report.line())
    say(f"commit: {done.commit}")
