"""`egapipe store import`."""

from typing import Annotated

import typer

from egapipe.pipeline.store.command import app as store
from egapipe.pipeline.terminal.options import ConfigName, Overrides, as_place
from egapipe.pipeline.terminal.text import say


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
        progress=open_progress,
    )
    say(report.line())
