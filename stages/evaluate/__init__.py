"""Evaluate a trained student: accuracy, calibration, probes, graphs and cost."""

from typing import TYPE_CHECKING

from egapipe.pipeline.lazy import lazy

if TYPE_CHECKING:
    from egapipe.stages.evaluate.evaluation import Evaluation
    from egapipe.stages.evaluate.measure import run

__all__ = ["PROBE_IMAGES", "Evaluation", "run"]

PROBE_IMAGES = 50_000
"""Training images that probes learn from, unless asked otherwise: all of CIFAR-100's."""

__getattr__ = lazy(__name__, {"run": "measure", "Evaluation": "evaluation"})
