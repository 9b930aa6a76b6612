"""`run`: image files in, classes and embeddings out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from egapipe.pipeline.config.data import FolderSource
from egapipe.pipeline.datasets import open_dataset
from egapipe.pipeline.datasets.images import decode
from egapipe.pipeline.datasets.reading import read_bytes
from egapipe.pipeline.errors import ImageError, UsageError
from egapipe.pipeline.locations.urls import text_of
from egapipe.pipeline.views import clean_part
from egapipe.stages.distill.data.images import Frame, fitted
from egapipe.stages.predict.predictor import Floats, Predictor, load_predictor

BATCH = 64


@dataclass(frozen=True)
class Prediction:
    """One image. classes: (name, probability), the most probable first. nodes: [D], the embedding
    that was aligned with the teacher's. features: [F] of the backbone. error: why there is nothing
    of these."""

    path: Path
    classes: list[tuple[str, float]]
    nodes: Floats | None = None
    features: Floats | None = None
    error: str = ""


def run(
    model: str | Path | Predictor,
    images: Sequence[str | Path],
    *,
    checkpoint: str = "last",
    top: int = 5,
    device: str = "auto",
    trust_remote_code: bool = False,
) -> Iterator[Prediction]:
    """Predict image files, in order; a folder stands for every image below it.

    model, checkpoint, trust_remote_code: see `load_predictor`. top: classes an image. A file that
    cannot be read is a Prediction with an error. Raises UsageError, before the first image: no such
    model, file or image.
    """
    if top < 1:
        raise UsageError(f"top is {top}: ask for at least one class")
    predictor = (
        model
        if isinstance(model, Predictor)
        else load_predictor(model, device, checkpoint, trust_remote_code=trust_remote_code)
    )
    paths = list(_files(images))
    return _predict(predictor, paths, top)


def _predict(predictor: Predictor, paths: Sequence[Path], top: int) -> Iterator[Prediction]:
    for start in range(0, len(paths), BATCH):
        part = paths[start : start + BATCH]
        read = [_read(path, predictor.spec.frame) for path in part]
        pixels = [image for image in read if isinstance(image, Tensor)]
        outputs = iter(_outputs(predictor, torch.stack(pixels), top) if pixels else ())
        for path, image in zip(part, read, strict=True):
            if isinstance(image, str):
                yield Prediction(path, [], error=image)
            else:
                yield Prediction(path, *next(outputs))


def _outputs(
    predictor: Predictor, pixels: Tensor, top: int
) -> Iterator[tuple[list[tuple[str, float]], Floats, Floats]]:
    logits, nodes, features = predictor.run(pixels)
    probabilities = torch.from_numpy(logits).softmax(dim=1).numpy()
    for row, probability in enumerate(probabilities):
        best = np.argsort(-probability, kind="stable")[:top]
        classes = [(predictor.class_name(int(c)), float(probability[c])) for c in best]
        yield classes, nodes[row], features[row]


def _files(images: Sequence[str | Path]) -> Iterator[Path]:
    for name in images:
        path = Path(name)
        if path.is_dir():
            keys = open_dataset(FolderSource(kind="folder", path=text_of(path))).keys
            yield from (path / key for key in keys)
        elif path.exists():
            yield path
        else:
            raise UsageError(f"{path} is neither an image file nor a folder")


def _read(path: Path, frame: Frame) -> Tensor | str:
    """The clean view of an image file, see `clean_view`; or why there is none."""
    try:
        return clean_view(decode(read_bytes(path)), frame)
    except ImageError as error:
        return str(error)


def clean_view(image: Image.Image, frame: Frame) -> Tensor:
    """The clean view of an RGB image, uint8 [3, H, W], cut out and resized as in training."""
    seen = fitted(clean_part(image, frame.aspect), frame.size)
    return torch.from_numpy(np.array(seen)).permute(2, 0, 1)
