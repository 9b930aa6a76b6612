"""`egapipe track`."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from egapipe.pipeline.terminal.options import as_place, as_service
from egapipe.pipeline.terminal.text import say

if TYPE_CHECKING:
    from egapipe.pipeline.config.track import Tracking


def register(app: typer.Typer) -> None:
    """Add `egapipe track`."""
    app.command()(track)


def track(
    run: Annotated[
        str, typer.Argument(parser=as_place, help="Folder of a run, a comparison or a sweep.")
    ],
    to: Annotated[
        Literal["mlflow", "wandb"] | None,
        typer.Option("--to", help="Which tracker (default: what the configuration says)."),
    ] = None,
    uri: Annotated[
        str | None,
        typer.Option(parser=as_service, help="Of MLflow: tracking server or store."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Experiment or project (default: the configuration's name).")
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Of W&B: write files for `wandb sync`.")
    ] = False,
) -> None:
    """Send what was trained before to MLflow or W&B: settings, epochs with their times, report.

    What is there already is not sent again.
    """
    from egapipe.stages.track import send

    count = send(run, _options(to, uri, name, offline))
    say(f"sent {count} training{'s'[: count != 1]} of {run}")


def _options(
    to: Literal["mlflow", "wandb"] | None, uri: str | None, name: str | None, offline: bool
) -> "Tracking | None":
    from egapipe.pipeline.config.track import MlflowTracking, WandbTracking
    from egapipe.pipeline.errors import UsageError

    if to is None and (uri or name or offline):
        raise UsageError("which tracker is meant: add --to mlflow or --to wandb")
    if to == "mlflow":
        return MlflowTracking(kind="mlflow", uri=uri, experiment=name)
    if to == "wandb":
        mode: Literal["online", "offline"] = "offline" if offline else "online"
        return WandbTracking(kind="wandb", project=name, mode=mode)
    return None
