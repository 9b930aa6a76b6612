"""Evaluate a trained student: accuracy, calibration, probes, graphs and cost."""

from typing import TYPE_CHECKING

from egapipe.pipeline.machine.lazy import lazy

if TYPE_CHECKING:
    from egapipe.stages.evaluate.evaluation import Evaluation, Predictions
    from egapipe.stages.evaluate.measure import predictions_of, run

__all__ = ["PROBE_IMAGES", "Evaluation", "Predictions", "predictions_of", "run"]

PROBE_IMAGES = 50_000
"""Training images that probes learn from, unless asked otherwise: all of CIFAR-100's."""

__getattr__ = lazy(
    __name__,
    {
        "run": "measure",
        "predictions_of": "measure",
        "Evaluation": "evaluation",
        "Predictions": "evaluation",
    },
)
