"""`run`: image files and folders in, classes and embeddings out."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from egapipe.pipeline.config.data import FolderSource
from egapipe.pipeline.datasets import open_dataset
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.locations.urls import text_of
from egapipe.stages.predict.pictures import Picture
from egapipe.stages.predict.predictor import Prediction, Predictor, load_predictor


def run(
    model: str | Path | Predictor,
    images: Iterable[Picture],
    *,
    checkpoint: str = "last",
    top: int = 5,
    device: str = "auto",
    trust_remote_code: bool = False,
) -> Iterator[Prediction]:
    """Predict image files, in order; a folder stands for every image below it.

    model, checkpoint, trust_remote_code: see `load_predictor`. images: may be pictures in memory,
    too. top: classes an image. A file that cannot be read is a Prediction with an error. Raises
    UsageError, before the first image: no such model, file or image.
    """
    predictor = (
        model
        if isinstance(model, Predictor)
        else load_predictor(model, device, checkpoint, trust_remote_code=trust_remote_code)
    )
    return predictor.predict_each(every_picture(images), top)


def every_picture(images: Iterable[Picture]) -> list[Picture]:
    """Images, with every image below those that are folders. Raises UsageError for what is none."""
    return [one for given in images for one in _each(given)]


def _each(given: Picture) -> Iterator[Picture]:
    if not isinstance(given, str | Path):
        yield given
        return
    path = Path(given)
    if path.is_dir():
        keys = open_dataset(FolderSource(kind="folder", path=text_of(path))).keys
        yield from (path / key for key in keys)
    elif path.exists():
        yield path
    else:
        raise UsageError(f"{path} is neither an image file nor a folder")
