"""`egapipe index`, `egapipe neighbours` and `egapipe leaks`."""

import csv
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from egapipe.pipeline.options import (
    Checkpoint,
    ConfigName,
    Overrides,
    TrustRemoteCode,
    as_path,
    as_place,
)
from egapipe.pipeline.text import say

if TYPE_CHECKING:
    from egapipe.stages.index import Leak, LeakReport

_SHOWN = 20


def register(app: typer.Typer) -> None:
    """Add the three commands."""
    app.command()(index)
    app.command()(neighbours)
    app.command()(leaks)


def index(
    store: Annotated[
        str, typer.Argument(parser=as_place, help="Folder or URL of a complete store.")
    ],
    kind: Annotated[
        Literal["auto", "flat", "hnsw", "ivf"],
        typer.Option(help="auto: flat up to 100,000 rows, hnsw up to a million, ivf above."),
    ] = "auto",
    to: Annotated[
        Path | None,
        typer.Option(parser=as_path, help="File to write; default: in this node's cache."),
    ] = None,
) -> None:
    """Build a faiss index of a store's clean embeddings (cosine), and measure its recall."""
    from egapipe.stages.index import build

    of = build(store, kind=kind, to=to).report
    say(
        f"{of.kind}: {of.rows:,} rows x {of.dim}, {of.bytes / 1e6:.1f} MB, built in "
        f"{of.seconds:.1f} s, recall@10 {of.recall:.3f}"
    )
    say(f"index: {of.file}")


def neighbours(
    images: Annotated[list[Path], typer.Argument(parser=as_path, help="Image files.")],
    config: ConfigName = None,
    overrides: Overrides = None,
    split: Annotated[
        Literal["train", "test"], typer.Option(help="Among which images to look.")
    ] = "train",
    k: Annotated[int, typer.Option("-k", min=1, help="Neighbours an image.")] = 10,
    run: Annotated[
        Path | None,
        typer.Option(
            parser=as_path, help="In the space of this run's student; default: the teacher's."
        ),
    ] = None,
    checkpoint: Checkpoint = "last",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Show the images of a data set that are nearest to others, in teacher or student space."""
    from egapipe.pipeline.config import load_config
    from egapipe.stages.index import neighbours as find

    loaded = load_config(config, overrides or [], trust_remote_code=trust_remote_code)
    near_by = find(
        loaded,
        images,
        split=split,
        k=k,
        run=run,
        checkpoint=checkpoint,
        trust_remote_code=trust_remote_code,
    )
    for path, found in near_by.items():
        if as_json:
            near = [asdict(neighbour) for neighbour in found]
            say(json.dumps({"path": str(path), "neighbours": near}))
            continue
        say(f"{path}")
        for neighbour in found:
            say(f"  {neighbour.cosine:.4f}  {neighbour.key}  label {neighbour.label}")


def leaks(
    config: ConfigName = None,
    overrides: Overrides = None,
    threshold: Annotated[
        float, typer.Option(help="Least cosine in teacher space of what is listed.")
    ] = 0.95,
    output: Annotated[
        Path | None, typer.Option(parser=as_path, help="CSV file for all pairs.")
    ] = None,
) -> None:
    """List test images that are nearly, or exactly, among the training images."""
    from egapipe.pipeline.config import load_config
    from egapipe.stages.index import find_leaks

    # Neither teacher nor student is built here: what they are called is not imported.
    loaded = load_config(config, overrides or [], trust_remote_code=True)
    report = find_leaks(loaded, threshold=threshold)
    say(*leak_lines(report))
    if output is not None:
        write_leaks(output, report.leaks)


def leak_lines(report: "LeakReport") -> list[str]:
    """A report as lines of text: how many at which cosine, and the pairs that are most alike."""
    at = ", ".join(f"{count:,} from {level:g} on" for level, count in report.levels.items())
    same = sum(leak.identical for leak in report.leaks)
    differ = sum(not leak.same_label for leak in report.leaks)
    lines = [
        f"{report.test_images:,} test images against {report.train_images:,} training images",
        f"cosine of the nearest: {at}",
        f"from {report.threshold:g} on: {len(report.leaks):,} ({same:,} with the same pixels, "
        f"{differ:,} with another label)",
    ]
    lines += [f"  {_pair(leak)}" for leak in report.leaks[:_SHOWN]]
    rest = len(report.leaks) - _SHOWN
    return [*lines, f"  and {rest:,} more: --output FILE.csv has all"] if rest > 0 else lines


def _pair(leak: "Leak") -> str:
    notes = ", ".join(
        note
        for note, holds in (
            ("same pixels", leak.identical),
            ("another label", not leak.same_label),
        )
        if holds
    )
    return f"{leak.cosine:.4f}  {leak.test_key}  {leak.train_key}" + (notes and f"  ({notes})")


def write_leaks(file: Path, leaks: "list[Leak]") -> None:
    """One line a pair."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["test_key", "train_key", "cosine", "identical", "same_label"])
        writer.writerows(asdict(leak).values() for leak in leaks)
