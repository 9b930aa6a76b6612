"""`egapipe store import`."""

from typing import Annotated, Literal

import typer

from egapipe.pipeline.options import ConfigName, Overrides
from egapipe.pipeline.store.command import app as store


def register(root: typer.Typer) -> None:
    """Add `import` to `egapipe store`, which the pipeline has put under the root."""
    del root
    store.command("import")(import_)


def import_(
    embeddings: Annotated[str, typer.Argument(help="A .npy or .parquet file.")],
    config: ConfigName = None,
    overrides: Overrides = None,
    split: Annotated[
        Literal["train", "test"], typer.Option(help="Whose images the embeddings are of.")
    ] = "train",
    column: Annotated[str, typer.Option(help="Of a parquet file: the embeddings.")] = "embedding",
) -> None:
    """Make a store from embeddings that another program computed."""
    from egapipe.pipeline.config import load_config
    from egapipe.pipeline.progress import open_progress
    from egapipe.stages.extract import import_embeddings

    report = import_embeddings(
        load_config(config, overrides or []),
        embeddings,
        split=split,
        column=column,
        progress=open_progress,
    )
    typer.echo(report.line())
