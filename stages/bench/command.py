"""`egapipe bench`."""

import importlib
from enum import StrEnum
from typing import Annotated

import typer

from egapipe.pipeline.terminal.text import say


class Part(StrEnum):
    """What is measured."""

    READER = "reader"
    EGA = "ega"
    EXTRACT = "extract"
    DECODING = "decoding"
    DISTILL = "distill"
    EPOCH = "epoch"
    SCALE = "scale"
    STORE = "store"
    HELP = "help"


def register(app: typer.Typer) -> None:
    """Add `egapipe bench`."""
    app.command()(bench)


def bench(part: Annotated[Part, typer.Argument(help="What to measure.")]) -> None:
    """Measure a part of egapipe against a plain reference, in one process."""
    module = importlib.import_module(f"egapipe.stages.bench.{part.value}")
    say(*module.report())
