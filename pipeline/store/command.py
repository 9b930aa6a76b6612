"""`egapipe store`: look at feature stores, check them, compare them and take things out of them."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from egapipe.pipeline.errors import EgapipeError, StoreError, UsageError
from egapipe.pipeline.terminal.options import as_path, as_place
from egapipe.pipeline.terminal.text import padded, say, visible

if TYPE_CHECKING:
    from egapipe.pipeline.store.commands.check import CheckReport
    from egapipe.pipeline.store.commands.prune import Pruned
    from egapipe.pipeline.store.commands.summary import Summary
    from egapipe.pipeline.store.objects.base import Objects

app = typer.Typer(
    name="store",
    help="Look at feature stores, check, compare, export and tidy them.",
    no_args_is_help=True,
)

Complain = Callable[[EgapipeError], object]

Url = Annotated[
    str,
    typer.Argument(
        parser=as_place,
        help="Folder or fsspec URL of a store, or of a folder that holds stores.",
    ),
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
    from egapipe.pipeline.store.commands.summary import summarize

    shown = 0
    with _complaints() as complain:
        for store in _stores(url, complain):
            try:
                summary = summarize(store)
            except StoreError as error:
                complain(error)
                continue
            if as_json:
                typer.echo(json.dumps(summary))
                continue
            if shown:
                typer.echo("")
            _show(summary)
            shown += 1


@app.command()
def check(
    url: Url,
    sample: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Read the embeddings of so many shards only, spread over each store, and of the "
            "others the records (default: all).",
        ),
    ] = None,
) -> None:
    """Read whole stores and verify every checksum and count. Exit code 1 if anything is wrong."""
    with _complaints() as complain:
        reports = [_check(store, sample, complain) for store in _stores(url, complain)]
    if not all(report.ok for report in reports):
        raise typer.Exit(1)


@app.command()
def diff(
    a: Annotated[str, typer.Argument(parser=as_place, help="Folder or fsspec URL of a store.")],
    b: Annotated[
        str, typer.Argument(parser=as_place, help="Folder or fsspec URL of another store.")
    ],
) -> None:
    """Compare two stores: manifest, rows, checksums and cosines. Exit code 1 if they differ."""
    from egapipe.pipeline.store.commands.diff import diff_stores

    one, other = _store(a), _store(b)
    found = diff_stores(one, other)
    for line in (f"{one.url} | {other.url}", *(f"  {line}" for line in found.lines())):
        say(line)
    typer.echo("equal" if found.equal else "different")
    if not found.equal:
        raise typer.Exit(1)


@app.command()
def export(
    url: Annotated[
        str, typer.Argument(parser=as_place, help="Folder or fsspec URL of a complete store.")
    ],
    out: Annotated[
        str,
        typer.Argument(
            parser=as_place,
            help="A new .parquet file, or .npy (its keys go into a .txt beside it).",
        ),
    ],
    output: Annotated[str, typer.Option(help="Which output of the teacher.")] = "embedding",
    view: Annotated[
        int | None, typer.Option(help="Only this view, 0 is the clean one (default: all views).")
    ] = None,
) -> None:
    """Write the embeddings of a store to one file, exactly as they are stored."""
    from egapipe.pipeline.store.commands.export import export_store

    store = _store(url)
    with bar("exporting") as progress:
        files = export_store(store, out, name=output, view=view, progress=progress)
    say(f"{store.url}: exported to {' and '.join(map(str, files))}")


@app.command()
def prune(
    url: Url,
    cache: Annotated[
        Path | None,
        typer.Option(
            parser=as_path,
            help="Also remove what is old of all that egapipe keeps in this cache folder.",
        ),
    ] = None,
    unused_days: Annotated[
        float,
        typer.Option(min=0, help="An entry of the cache is old if it was not opened for so long."),
    ] = 30.0,
    idle_minutes: Annotated[
        float, typer.Option(min=0, help="A writer that wrote nothing for so long is taken as dead.")
    ] = 60.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list them.")] = False,
) -> None:
    """Remove what killed writers left in stores, and what is old in a cache; never stored data."""
    from egapipe.pipeline.store.commands.prune import (
        DAY,
        MINUTE,
        contents,
        prune_cache,
        prune_store,
    )

    with _complaints() as complain:
        kept: set[str] = set()
        for store in _stores(url, complain):
            try:
                left = prune_store(store, idle=idle_minutes * MINUTE, dry_run=dry_run)
                _list_pruned(store.url, left, dry_run, complain)
                kept |= contents(store)
            except StoreError as error:
                complain(error)
        if cache is not None:
            from egapipe.pipeline.disk.paths import own_folder

            folder = own_folder(cache)
            old = prune_cache(folder, kept, unused=unused_days * DAY, dry_run=dry_run)
            _list_pruned(str(folder), old, dry_run, complain)


def _list_pruned(
    where: str, found: "list[Pruned | StoreError]", dry_run: bool, complain: Complain
) -> None:
    from rich.filesize import decimal

    gone = [one for one in found if not isinstance(one, StoreError)]
    size = decimal(sum(pruned.bytes for pruned in gone))
    done = "would remove" if dry_run else "removed"
    say(f"{where}: {done} {len(gone)} files, {size}")
    for pruned in gone:
        say(f"  {pruned.where}  {decimal(pruned.bytes)}  {pruned.why}")
    for one in found:
        if isinstance(one, StoreError):
            complain(one)


def _store(url: str) -> "Objects":
    """The one store that a URL names."""
    failed: list[EgapipeError] = []
    stores = list(_stores(url, failed.append))
    if failed:
        # There may be another one where nobody can look.
        raise failed[0]
    if len(stores) > 1:
        raise UsageError(f"{url} holds {len(stores)} stores: give the folder of one of them")
    return stores[0]


def _stores(url: str, complain: Complain) -> "Iterator[Objects]":
    """The stores that a URL names. What cannot be looked into is complained of."""
    from egapipe.pipeline.store.find import DEPTH, find_stores

    nothing = True
    for found in find_stores(url):
        nothing = False
        if isinstance(found, StoreError):
            complain(found)
        else:
            yield found
    if nothing:
        raise UsageError(
            f"no store at {url}, nor up to {DEPTH} folders below it: "
            "run `egapipe extract`, or give the folder of a store"
        )


@contextmanager
def _complaints() -> Iterator[Complain]:
    """For the length of a block, print errors that end nothing; after it, end with exit code 1 if
    there was one."""
    complained: list[EgapipeError] = []

    def complain(error: EgapipeError) -> None:
        say(f"error: {error}", err=True)
        complained.append(error)

    yield complain
    if complained:
        raise typer.Exit(1)


def _show(summary: "Summary") -> None:
    from egapipe.pipeline.store.commands.summary import summary_lines

    lines = summary_lines(summary)
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        typer.echo(f"{typer.style(padded(name, width), bold=True)}  {visible(value)}")


def _check(store: "Objects", sample: int | None, complain: Complain) -> "CheckReport":
    from egapipe.pipeline.store.commands.check import check_store

    with bar("checking") as progress:
        report = check_store(store, progress, sample=sample)
    if report.shards:
        say(report.line())
        for problem in report.problems:
            say(f"  {problem}")
    else:
        for problem in report.problems:
            complain(StoreError(problem))
    return report


@contextmanager
def bar(task: str) -> Iterator[Callable[[int, int], None]]:
    """Show (done, planned) on stderr, if that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        shown = bar.add_task(task, total=None)
        yield lambda done, planned: bar.update(shown, completed=done, total=planned)
