"""`egapipe evaluate`."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def register(app: typer.Typer) -> None:
    """Add `egapipe evaluate`."""
    app.command()(evaluate)


def evaluate(
    run: Annotated[Path, typer.Argument(help="The run folder that `egapipe distill` printed.")],
    checkpoint: Annotated[
        Literal["last", "best"], typer.Option(help="Which epoch's weights.")
    ] = "last",
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="Where the student runs.")
    ] = "auto",
) -> None:
    """Measure a student's accuracy on the test images of its run."""
    from egapipe.stages.distill import load_student

    accuracy = load_student(run, checkpoint, device).accuracy()
    typer.echo(
        f"{checkpoint} checkpoint of {run}: top-1 {accuracy.top1:.2f} %, "
        f"top-5 {accuracy.top5:.2f} % of {accuracy.images} images"
    )
