"""`egapipe store`: look at feature stores, and check that they are whole."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from egapipe.pipeline.errors import StoreError, UsageError

if TYPE_CHECKING:
    from egapipe.pipeline.store.check import CheckReport
    from egapipe.pipeline.store.summary import Summary

app = typer.Typer(name="store", help="Look at feature stores and check them.", no_args_is_help=True)

Url = Annotated[
    str, typer.Argument(help="Folder or fsspec URL of a store, or of a folder that holds stores.")
]


def register(root: typer.Typer) -> None:
    """Add `egapipe store`."""
    root.add_typer(app)


@app.command()
def info(
    url: Url,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a store, one a line.")
    ] = False,
) -> None:
    """Show what stores hold and how much of it is there."""
    from egapipe.pipeline.store.summary import summarize

    unreadable = 0
    for number, store in enumerate(_stores(url)):
        try:
            summary = summarize(store)
        except StoreError as error:
            _complain(error)
            unreadable += 1
            continue
        if as_json:
            typer.echo(json.dumps(summary))
            continue
        if number:
            typer.echo("")
        _show(summary)
    if unreadable:
        raise typer.Exit(1)


@app.command()
def check(url: Url) -> None:
    """Read whole stores and verify every checksum and count. Exit code 1 if anything is wrong."""
    reports = [_check(store) for store in _stores(url)]
    if not all(report.ok for report in reports):
        raise typer.Exit(1)


def _stores(url: str) -> list[str]:
    from egapipe.pipeline.store.find import DEPTH, find_stores

    stores = find_stores(url)
    if not stores:
        raise UsageError(
            f"no store at {url}, nor up to {DEPTH} folders below it: "
            "run `egapipe extract`, or give the folder of a store"
        )
    return stores


def _complain(error: object) -> None:
    typer.echo(f"error: {error}", err=True)


def _show(summary: "Summary") -> None:
    from egapipe.pipeline.store.summary import summary_lines

    lines = summary_lines(summary)
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        typer.echo(f"{typer.style(name.ljust(width), bold=True)}  {value}")


def _check(url: str) -> "CheckReport":
    from rich.console import Console
    from rich.progress import Progress

    from egapipe.pipeline.store.check import check_store

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("checking", total=None)
        report = check_store(url, lambda done, all_: bar.update(task, completed=done, total=all_))
    if report.shards:
        typer.echo(report.line())
        for problem in report.problems:
            typer.echo(f"  {problem}")
    else:
        for problem in report.problems:
            _complain(problem)
    return report
