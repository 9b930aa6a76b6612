"""Use a trained student: classes and embeddings of images, in files or in memory."""

from typing import TYPE_CHECKING

from egapipe.pipeline.machine.lazy import lazy

if TYPE_CHECKING:
    from egapipe.stages.predict.pictures import Picture, clean_view
    from egapipe.stages.predict.predicting import every_picture, run
    from egapipe.stages.predict.predictor import Prediction, Predictor, load_predictor

__all__ = [
    "Picture",
    "Prediction",
    "Predictor",
    "clean_view",
    "every_picture",
    "load_predictor",
    "run",
]

__getattr__ = lazy(
    __name__,
    {
        "run": "predicting",
        "every_picture": "predicting",
        "Picture": "pictures",
        "clean_view": "pictures",
        "Prediction": "predictor",
        "load_predictor": "predictor",
        "Predictor": "predictor",
    },
)
