"""`egapipe store import`."""

import re
from typing import Annotated

import typer

from egapipe.pipeline.store.command import app as store
from egapipe.pipeline.terminal.options import ConfigName, Overrides, as_place
from egapipe.pipeline.terminal.text import say

NAME = re.compile(r"[a-z][a-z0-9_]*")


def register(root: typer.Typer) -> None:
    """Add `import` to `egapipe store`, which the pipeline has put under the root."""
    del root
    store.command("import")(import_)


def import_(
    embeddings: Annotated[
        str,
        typer.Argument(
            parser=as_place,
            help="A .npy or .parquet file, the folder of a Hugging Face data set, or its name "
            "on the hub.",
        ),
    ],
    config: ConfigName = None,
    overrides: Overrides = None,
    split: Annotated[
        str, typer.Option(help="Whose images the embeddings are of: train, test or unlabelled.")
    ] = "train",
    column: Annotated[
        str, typer.Option(help="Of a table: lists of D floats, or of lists of them, a view each.")
    ] = "embedding",
    key_column: Annotated[
        str, typer.Option(help="Of a table: the images' keys; without it, rows are in their order.")
    ] = "key",
    outputs: Annotated[
        list[str] | None,
        typer.Option(
            "--output",
            help="NAME=PLACE of what else is stored, of any shape: a .npy file, or a column of the "
            "table; may be given several times.",
        ),
    ] = None,
    from_split: Annotated[
        str | None, typer.Option(help="Of a Hugging Face data set (default: that of --split).")
    ] = None,
) -> None:
    """Make a store from embeddings that another program computed."""
    from egapipe.pipeline.config import load_config
    from egapipe.pipeline.terminal.progress import open_progress
    from egapipe.stages.extract import import_embeddings
    from egapipe.stages.extract.importing.tables import Columns

    report = import_embeddings(
        load_config(config, overrides or [], trust_remote_code=True),
        embeddings,
        split=split,
        columns=Columns(column, key_column),
        from_split=from_split,
        outputs=_named(outputs or []),
        progress=open_progress,
    )
    say(report.line())


def _named(outputs: list[str]) -> dict[str, str]:
    """`["frames=f.npy"]` as a mapping. Raises UsageError for a text of another form."""
    from egapipe.pipeline.errors import UsageError
    from egapipe.pipeline.locations.urls import path_of

    named = {}
    for text in outputs:
        name, equals, place = text.partition("=")
        if not equals or not NAME.fullmatch(name) or not place or name == "embedding":
            raise UsageError(
                f"--output {text!r} is not of the form NAME=PLACE, with a name of small letters, "
                "digits and _ that is not `embedding`"
            )
        named[name] = str(path_of(place)) if place.endswith(".npy") else place
    return named
