"""`egapipe predict`."""

import json
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from egapipe.pipeline.terminal.options import Checkpoint, TrustRemoteCode, as_path, as_place
from egapipe.pipeline.terminal.text import say

if TYPE_CHECKING:
    from egapipe.stages.predict import Prediction


def register(app: typer.Typer) -> None:
    """Add `egapipe predict`."""
    app.command()(predict)


def predict(
    model: Annotated[
        str,
        typer.Argument(
            parser=as_place, help="Run folder, folder of `egapipe export`, or its .onnx or .pt2."
        ),
    ],
    images: Annotated[
        list[Path], typer.Argument(parser=as_path, help="Image files, or folders of them.")
    ],
    checkpoint: Checkpoint = "last",
    top: Annotated[int, typer.Option(min=1, help="Classes an image.")] = 3,
    output: Annotated[
        Path | None,
        typer.Option(
            parser=as_path, help="Write .parquet or .jsonl with embeddings, or .csv without."
        ),
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="Where the student runs.")
    ] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Print the classes of images, and write their embeddings.

    Exits with 1 if an image could not be read; the others are done all the same.
    """
    from egapipe.stages.predict import run
    from egapipe.stages.predict.output import check_output, record, write_output

    if output is not None:
        check_output(output)
    errors: list[str] = []

    def shown() -> "Iterator[Prediction]":
        found = run(
            model,
            images,
            checkpoint=checkpoint,
            top=top,
            device=device,
            trust_remote_code=trust_remote_code,
        )
        for prediction in found:
            say(json.dumps(record(prediction)) if as_json else line(prediction))
            errors.extend(filter(None, [prediction.error]))
            yield prediction

    if output is None:
        deque(shown(), maxlen=0)
    else:
        write_output(output, shown())
    if errors:
        raise typer.Exit(1)


def line(prediction: "Prediction") -> str:
    """One image in one line: its path, and classes with probabilities or the error."""
    classes = ", ".join(f"{name} {probability:.3f}" for name, probability in prediction.classes)
    return f"{prediction.path}: {classes or f'error: {prediction.error}'}"
