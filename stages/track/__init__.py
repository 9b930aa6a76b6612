"""Trainings in MLflow or Weights & Biases, while they run or afterwards."""

from typing import TYPE_CHECKING

from egapipe.pipeline.machine.lazy import lazy

if TYPE_CHECKING:
    from egapipe.stages.track.sending import send
    from egapipe.stages.track.tracker import Tracker, tracked_experiment, tracked_run

__all__ = ["Tracker", "send", "tracked_experiment", "tracked_run"]

__getattr__ = lazy(
    __name__,
    {
        "send": "sending",
        "Tracker": "tracker",
        "tracked_experiment": "tracker",
        "tracked_run": "tracker",
    },
)
