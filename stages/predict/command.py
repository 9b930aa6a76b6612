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

# Images of which each is worth a line.
_FEW = 20


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
    each: Annotated[
        bool, typer.Option("--each", help=f"Print every image, also of more than {_FEW}.")
    ] = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Print how many images are of which class, or each image of a few, and write their embeddings.

    Exits with 1 if an image could not be read; the others are done all the same.
    """
    from egapipe.pipeline.terminal.progress import open_progress, silent_progress
    from egapipe.stages.predict import every_picture, load_predictor
    from egapipe.stages.predict.output import Summary, check_output, record, write_output

    if output is not None:
        check_output(output)
    # Before the images, which may be many: what is refused of a model is said at once.
    predictor = load_predictor(model, device, checkpoint, trust_remote_code=trust_remote_code)
    paths = every_picture(images)
    every = each or (len(paths) <= _FEW and output is None and not as_json)
    summary = Summary()
    # Of a few images none is worth a line.
    progress = open_progress if len(paths) > _FEW else silent_progress

    def shown() -> "Iterator[Prediction]":
        found = predictor.predict_each(paths, top)
        with progress("predict", len(paths), unit="images") as bar:
            for number, prediction in enumerate(found, start=1):
                summary.add(prediction)
                if as_json:
                    say(json.dumps(record(prediction)))
                elif every:
                    say(line(prediction))
                bar.update(number)
                yield prediction

    if output is None:
        deque(shown(), maxlen=0)
    else:
        write_output(output, shown())
    if not as_json and not every:
        say(*summary.lines())
    if summary.errors:
        raise typer.Exit(1)


def line(prediction: "Prediction") -> str:
    """One image in one line: its path, and classes with probabilities or the error."""
    classes = ", ".join(f"{name} {probability:.3f}" for name, probability in prediction.classes)
    return f"{prediction.path}: {classes or f'error: {prediction.error}'}"
