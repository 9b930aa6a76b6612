"""Command-line options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def as_path(text: str) -> Path:
    """A path of this machine, as in a configuration: the shell leaves `--to=~/x` as it is."""
    from egapipe.pipeline.locations.urls import path_of

    return path_of(str(text))


def as_place(text: str) -> str:
    """The text of a path of this machine, or of a URL without credentials; whoever opens it expands
    it, once."""
    from egapipe.pipeline.locations.urls import refuse_credentials, url_of

    refuse_credentials(url_of(text))
    return text


def as_service(text: str) -> str:
    """The address of a service, without credentials."""
    from egapipe.pipeline.errors import UsageError
    from egapipe.pipeline.locations.urls import has_secrets, with_variables

    address = with_variables(text)
    if has_secrets(address):
        raise UsageError(
            "an address on the command line holds credentials: leave them out, and set them in the"
            " environment"
        )
    return address


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
HubRepository = Annotated[
    str, typer.Option("--repo", help="Repository of the Hugging Face hub, `user/name`.")
]
Private = Annotated[
    bool, typer.Option("--private", help="Of a repository that is made now: nobody else sees it.")
]
