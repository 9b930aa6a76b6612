"""Command-line options that several commands share."""

from typing import Annotated, Literal

import typer

ConfigName = Annotated[
    str | None,
    typer.Option(
        "--config",
        "-c",
        help="Shipped configuration or YAML file, several joined by + (default: quickstart).",
    ),
]
TrustRemoteCode = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Import the module:callable that files name which egapipe wrote, here or elsewhere: "
        "that runs it.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a value: --set distill.lr=0.1 (repeatable)."),
]
Checkpoint = Annotated[
    Literal["last", "best", "ema"],
    typer.Option(
        "--checkpoint",
        help="Which weights: of the last epoch, of the best one, or the moving average of all.",
    ),
]
