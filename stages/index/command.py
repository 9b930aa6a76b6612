"""`egapipe index`, `egapipe neighbours` and `egapipe leaks`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from egapipe.pipeline.disk.comma_separated import comma_separated
from egapipe.pipeline.disk.files import output_file
from egapipe.pipeline.terminal.options import (
    Checkpoint,
    ConfigName,
    Overrides,
    TrustRemoteCode,
    as_path,
    as_place,
)
from egapipe.pipeline.terminal.text import say

if TYPE_CHECKING:
    from egapipe.stages.index import Leak, LeakReport
    from egapipe.stages.index.pictures import Copy

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
        str | None,
        typer.Option(
            parser=as_place, help="In the space of this run's student; default: the teacher's."
        ),
    ] = None,
    checkpoint: Checkpoint = "last",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Show the images of a data set that are nearest to others, in teacher or student space."""
    from egapipe.pipeline.config import load_config

    loaded = load_config(config, overrides or [], trust_remote_code=trust_remote_code)
    # After the configuration: a mistake in it does not wait for torch.
    from egapipe.stages.index import neighbours as find

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
        float | None,
        typer.Option(
            help="Least cosine in teacher space of what is listed beside copies; default: where "
            "99 % of the training images have no other one."
        ),
    ] = None,
    pictures: Annotated[
        bool,
        typer.Option(
            help="Decode every image and find copies by a perceptual hash, mirrored ones too."
        ),
    ] = True,
    output: Annotated[
        Path | None, typer.Option(parser=as_path, help="CSV file for all pairs.")
    ] = None,
) -> None:
    """List test images that are nearly, or exactly, among the training images."""
    from egapipe.pipeline.config import load_config
    from egapipe.pipeline.terminal.progress import open_progress

    # Neither teacher nor student is built here: what they are called is not imported.
    loaded = load_config(config, overrides or [], trust_remote_code=True)
    # After the configuration: a mistake in it does not wait for torch.
    from egapipe.stages.index import find_leaks

    report = find_leaks(loaded, threshold=threshold, pictures=pictures, progress=open_progress)
    say(*leak_lines(report))
    if output is not None:
        write_leaks(output, report.leaks)


def leak_lines(report: "LeakReport") -> list[str]:
    """A report as lines of text: how many at which cosine, and the pairs that are most alike."""
    at = ", ".join(f"{count:,} from {level:g} on" for level, count in report.levels.items())
    near = [leak for leak in report.leaks if leak.copy is None]
    differ = sum(not leak.same_label for leak in report.leaks)
    lines = [
        f"{report.test_images:,} test images against {report.train_images:,} training images",
        _copies(report),
        f"cosine of the nearest: {at}",
        f"others from {report.threshold:.4g} on: {len(near):,}{_usual(report)}",
    ]
    if report.leaks:
        lines += ["", f"{len(report.leaks):,} in all, {differ:,} with another label"]
    lines += [f"  {_pair(leak)}" for leak in report.leaks[:_SHOWN]]
    rest = len(report.leaks) - _SHOWN
    return [*lines, f"  and {rest:,} more: --output FILE.csv has all"] if rest > 0 else lines


def _copies(report: "LeakReport") -> str:
    """How many copies of which sort, and of which images it is not known."""
    if not report.hashed:
        why = "none of them can be read" if report.unread else "as --no-pictures says"
        return f"copies: images were not compared, {why}; equal embeddings are listed below"
    found = [leak.copy for leak in report.leaks]
    counts = ", ".join(f"{found.count(sort):,} {text}" for sort, text in _COPIED.items())
    unread = f"; {report.unread:,} images cannot be read and were not compared"
    return f"copies: {counts}{unread if report.unread else ''}"


_COPIED: "dict[Copy, str]" = {
    "pixels": "same pixels",
    "picture": "same picture",
    "mirrored": "mirrored",
}


def _usual(report: "LeakReport") -> str:
    """Where a threshold comes from that nobody has given."""
    from egapipe.stages.index.leaks import USUAL

    if not report.sampled:
        return ""
    chance = (1 - USUAL) * report.test_images
    if report.sampled * (1 - USUAL) < 1:
        return f" (no two of {report.sampled:,} training images are nearer)"
    return (
        f" ({USUAL:.0%} of {report.sampled:,} training images have no other one from there on, so "
        f"about {chance:.0f} would be listed by chance)"
    )


def _pair(leak: "Leak") -> str:
    copy = None if leak.copy is None else _COPIED[leak.copy]
    notes = ", ".join(filter(None, [copy, None if leak.same_label else "another label"]))
    shown = f"  ({notes})" if notes else ""
    return f"{leak.cosine:.4f}  {leak.test_key}  {leak.train_key}{shown}"


def write_leaks(file: Path, leaks: "list[Leak]") -> None:
    """One line a pair. Raises UsageError if the file cannot be written."""
    names = ["test_key", "train_key", "cosine", "copy", "same_label"]
    with output_file(file, "--output") as stream:
        stream.write(comma_separated(names, map(asdict, leaks)))
