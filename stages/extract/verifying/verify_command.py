"""`egapipe store verify`."""

from typing import Annotated

import typer

from egapipe.pipeline.store.command import app as store
from egapipe.pipeline.terminal.options import ConfigName, Overrides, TrustRemoteCode
from egapipe.pipeline.terminal.text import say


def register(root: typer.Typer) -> None:
    """Add `verify` to `egapipe store`, which the pipeline has put under the root."""
    del root
    store.command("verify")(verify)


def verify(
    config: ConfigName = None,
    overrides: Overrides = None,
    split: Annotated[
        str, typer.Option(help="Whose store is verified: train, test or unlabelled.")
    ] = "train",
    count: Annotated[
        int, typer.Option("--count", "-n", min=1, help="Embeddings to compute again.")
    ] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Which ones are drawn.")] = 0,
    images: Annotated[
        bool,
        typer.Option("--images", help="Read every image, and list those that have changed."),
    ] = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Run the teacher again on some images and views. Exit code 1 if the store has others."""
    from egapipe.pipeline.config import load_config
    from egapipe.stages.extract.verifying.verify import verify_store

    loaded = load_config(config, overrides or [], trust_remote_code=trust_remote_code)
    report = verify_store(loaded, split=split, count=count, seed=seed, images=images)
    say(*report.lines())
    if not report.ok:
        raise typer.Exit(1)
