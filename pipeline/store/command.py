"""`egapipe store`: look at a feature store, and check that it is whole."""

import json
from typing import Annotated, Any

import typer

app = typer.Typer(name="store", help="Look at feature stores and check them.", no_args_is_help=True)

Url = Annotated[str, typer.Argument(help="Folder or fsspec URL of the store, e.g. train.zarr.")]


def register(root: typer.Typer) -> None:
    """Add `egapipe store`."""
    root.add_typer(app)


@app.command()
def info(
    url: Url,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show what a store holds and how much of it is there."""
    summary = summarize(url)
    if as_json:
        typer.echo(json.dumps(summary, indent=2))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None)
    for name, value in _lines(summary):
        table.add_row(Text(name, style="bold"), Text(value, overflow="fold"))
    Console().print(table)


@app.command()
def check(url: Url) -> None:
    """Read a whole store and verify every checksum and count. Exit code 1 if anything is wrong."""
    from rich.console import Console
    from rich.progress import Progress

    from egapipe.pipeline.store.check import check_store

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("checking", total=None)
        report = check_store(url, lambda done, all_: bar.update(task, completed=done, total=all_))
    for problem in report.problems:
        typer.echo(problem)
    if report.shards:
        state = "complete" if report.complete else "unfinished"
        read = f"{report.bytes / 1e9:.3f} GB in {report.seconds:.1f} s"
        typer.echo(
            f"{report.url}: {state}, {report.committed} of {report.shards} shards, read {read}, "
            f"problems: {len(report.problems)}"
        )
    if not report.ok:
        raise typer.Exit(1)


def summarize(url: str) -> dict[str, Any]:
    """Everything `info` shows, as JSON values. bytes: of all objects. Raises StoreError."""
    from egapipe.pipeline.store.store import FeatureStore

    store = FeatureStore.open(url)
    manifest, commits = store.manifest, store.commits()
    return {
        "url": store.url,
        "complete": store.complete,
        "shards": {"committed": len(commits), "planned": len(store.shards)},
        "rows": manifest.rows,
        "views": manifest.view_count,
        "outputs": {name: list(shape) for name, shape in manifest.outputs.items()},
        "dtype": manifest.dtype,
        "bytes": sum(store.objects.sizes().values()),
        "failures": sum(len(commit.failures) for commit in commits.values()),
        "nonfinite": sum(commit.nonfinite for commit in commits.values()),
        "dataset": manifest.dataset.model_dump(mode="json"),
        "teacher": manifest.teacher,
        "preprocessing": manifest.preprocessing,
        "views_plan": manifest.views.model_dump(mode="json"),
        "versions": manifest.versions,
    }


def _lines(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Names and values for people."""
    shards = summary["shards"]
    done = f"{shards['committed']} of {shards['planned']} shards"
    dims = {n: " x ".join(map(str, shape)) or "1" for n, shape in summary["outputs"].items()}
    return [
        ("store", summary["url"]),
        ("state", "complete" if summary["complete"] else f"unfinished, {done}"),
        ("rows", f"{summary['rows']:,}"),
        ("views", f"{summary['views']} (the clean one included)"),
        *((f"{name} dim", dim) for name, dim in dims.items()),
        ("dtype", summary["dtype"]),
        ("size", f"{summary['bytes'] / 1e9:.3f} GB"),
        ("shards", done),
        ("failures", f"{summary['failures']} rows, {summary['nonfinite']} of them not finite"),
        ("dataset", f"{summary['dataset']['name']} ({summary['dataset']['fingerprint'][:12]})"),
        *((f"teacher {key}", str(value)) for key, value in summary["teacher"].items()),
    ]
