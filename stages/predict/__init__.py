"""Use a trained student: classes and embeddings of image files."""

from typing import TYPE_CHECKING

from egapipe.pipeline.machine.lazy import lazy

if TYPE_CHECKING:
    from egapipe.stages.predict.predicting import Prediction, clean_view, run
    from egapipe.stages.predict.predictor import Predictor, load_predictor

__all__ = ["Prediction", "Predictor", "clean_view", "load_predictor", "run"]

__getattr__ = lazy(
    __name__,
    {
        "run": "predicting",
        "clean_view": "predicting",
        "Prediction": "predicting",
        "load_predictor": "predictor",
        "Predictor": "predictor",
    },
)
