"""`egapipe extract`: teacher embeddings of every view of every image, into the store."""

from contextlib import nullcontext
from typing import Annotated, Literal

import typer

from egapipe.pipeline.options import ConfigName, Overrides


def register(app: typer.Typer) -> None:
    """Add `egapipe extract`."""
    app.command()(extract)


def extract(
    config: ConfigName = None,
    overrides: Overrides = None,
    local: Annotated[
        bool, typer.Option("--local", help="In this process instead of Ray workers.")
    ] = False,
    split: Annotated[
        Literal["train", "test", "all"], typer.Option(help="Which images; all: those there are.")
    ] = "all",
) -> None:
    """Run the teacher over every view of every image, once, and store its embeddings.

    Run it again after an interruption: it continues where it stopped.
    """
    from egapipe.pipeline.cluster import ray_session
    from egapipe.pipeline.config import load_config
    from egapipe.pipeline.progress import open_progress
    from egapipe.stages.extract import prepare

    loaded = load_config(config, overrides or [])
    extractions = prepare(loaded, loaded.splits() if split == "all" else [split])
    on_ray = not local and any(not extraction.complete for extraction in extractions)
    # One Ray for all splits: it takes longer to start than a small split to extract.
    with ray_session(loaded.cluster) if on_ray else nullcontext():
        for extraction in extractions:
            report = extraction.run(local=local, progress=open_progress)
            typer.echo(report.line())
