"""Trackers of trainings: where else their metrics go."""

from typing import Annotated, Literal

from pydantic import Field

from egapipe.pipeline.config.base import Section, Text
from egapipe.pipeline.config.located import TrackingUrl


class MlflowTracking(Section):
    """MLflow, one run a training (`pip install 'egapipe[mlflow]'`)."""

    kind: Literal["mlflow"]
    uri: TrackingUrl | None = None
    """Tracking server or store; default: MLFLOW_TRACKING_URI, else a database in the folder
    of the run or experiment."""

    experiment: Text | None = None
    """Name of the experiment; default: the configuration's."""


class WandbTracking(Section):
    """Weights & Biases, one run a training (`pip install 'egapipe[wandb]'`)."""

    kind: Literal["wandb"]
    project: Text | None = None
    """Name of the project; default: the configuration's."""
    mode: Literal["online", "offline"] = "online"
    """`offline` writes into the folder of the run or experiment, for `wandb sync`."""


Tracking = Annotated[MlflowTracking | WandbTracking, Field(discriminator="kind")]
