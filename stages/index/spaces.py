"""The images of a data set that are nearest to others, in teacher or student space."""

import hashlib
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image

from egapipe.pipeline.config import Config
from egapipe.pipeline.config.tree import Split
from egapipe.pipeline.datasets import Dataset, open_split
from egapipe.pipeline.datasets.decoding.images import decode
from egapipe.pipeline.datasets.decoding.reading import read_bytes
from egapipe.pipeline.disk.caches import NODES, build_once
from egapipe.pipeline.disk.paths import cache_dir
from egapipe.pipeline.errors import ImageError, UsageError
from egapipe.pipeline.mathematics.nearest import Floats, Ints, nearest, unit_directions
from egapipe.pipeline.results.pairing import check_pair
from egapipe.pipeline.store import FeatureStore
from egapipe.stages.distill import TrainedStudent, load_student
from egapipe.stages.extract import embed
from egapipe.stages.index.embedding_index import build
from egapipe.stages.predict import Predictor, clean_view


@dataclass(frozen=True)
class Neighbour:
    """An image of the data set. label: -1 = unlabelled. cosine: of the embeddings."""

    row: int
    key: str
    label: int
    cosine: float


class Space(Protocol):
    """Where images are compared."""

    def nearest(self, images: Sequence[Image.Image], k: int) -> tuple[Floats, Ints]:
        """Cosines [n, k] and rows of the data set, int64 [n, k], -1 where there are fewer."""
        ...


def neighbours(
    config: Config,
    images: Sequence[str | Path],
    *,
    split: Split = "train",
    k: int = 10,
    run: str | Path | None = None,
    checkpoint: str = "last",
    trust_remote_code: bool = False,
) -> dict[Path, list[Neighbour]]:
    """The k images of a split that are nearest to each image file, the nearest first.

    In the space of the teacher (its store must be there), or of the student of a run folder, of
    its `checkpoint` (`last`, `best` or `ema`); all images are embedded once a student then. Raises
    UsageError (no such split or file, an image that cannot be read, imported embeddings),
    StoreError or TeacherError.
    """
    if k < 1:
        raise UsageError(f"k is {k}: ask for at least one neighbour")
    dataset = open_split(config, split)
    paths = [Path(image) for image in images]
    pictures = [_open(path) for path in paths]
    space: Space
    if run is None:
        space = TeacherSpace(config, dataset, split)
    else:
        space = StudentSpace(run, dataset, checkpoint, trust_remote_code=trust_remote_code)
    cosines, rows = space.nearest(pictures, k)
    return {
        path: _named(dataset, near, cosine)
        for path, near, cosine in zip(paths, rows, cosines, strict=True)
    }


class TeacherSpace:
    """The embeddings in the store."""

    def __init__(self, config: Config, dataset: Dataset, split: Split) -> None:
        url = config.store_url(split)
        check_pair(FeatureStore.open(url), config, dataset, split)
        self._output = config.distill.teacher_output
        self._config = config
        self._index = build(url, output=self._output, cache_dir=config.store.cache_dir)

    def nearest(self, images: Sequence[Image.Image], k: int) -> tuple[Floats, Ints]:
        """See `Space.nearest`."""
        vectors = embed(self._config, images)[self._output]
        return self._index.search(vectors.reshape(len(vectors), -1), k)


class StudentSpace:
    """The nodes of a trained student."""

    def __init__(
        self,
        run: str | Path,
        dataset: Dataset,
        checkpoint: str = "last",
        *,
        trust_remote_code: bool = False,
    ) -> None:
        self._student = load_student(run, checkpoint, trust_remote_code=trust_remote_code)
        self._rows, self._nodes = _embedded(self._student, dataset)

    def nearest(self, images: Sequence[Image.Image], k: int) -> tuple[Floats, Ints]:
        """See `Space.nearest`."""
        pixels = torch.stack([clean_view(image, self._student.spec.frame) for image in images])
        _, nodes, _ = Predictor.of(self._student).run(pixels)
        nodes = unit_directions(nodes)
        cosines, places = nearest(self._nodes, nodes, min(k, len(self._rows)))
        return cosines, self._rows[places]


def _embedded(student: TrainedStudent, dataset: Dataset) -> tuple[Ints, Floats]:
    """Rows that can be read, int64 [n], and their nodes at unit length, from this node's cache."""
    file = NODES.file(cache_dir(), _identity(student, dataset))

    def build(partial: Path) -> None:
        parts = list(student.outputs(dataset, np.arange(len(dataset))))
        if not parts:
            raise UsageError(f"{dataset.name} has no image that can be read")
        with partial.open("wb") as stream:
            np.savez(
                stream,
                rows=np.concatenate([part.rows for part in parts]),
                nodes=unit_directions(np.concatenate([p.nodes.cpu().numpy() for p in parts])),
            )

    return build_once(NODES, file, lambda: _known(file), build)


def _known(file: Path) -> tuple[Ints, Floats] | None:
    """None if they are not there, or damaged."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            rows, nodes = stored["rows"], stored["nodes"]
    except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile, zlib.error):
        return None
    whole = rows.ndim == 1 and nodes.ndim == 2 and len(rows) == len(nodes)
    return (rows, nodes) if whole else None


def _identity(student: TrainedStudent, dataset: Dataset) -> str:
    digest = hashlib.sha256(student.spec.model_dump_json().encode())
    for name, tensor in sorted(student.student.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    digest.update(f"{dataset.fingerprint()} {student.config.distill.precision}".encode())
    return digest.hexdigest()[:32]


def _open(path: Path) -> Image.Image:
    try:
        return decode(read_bytes(path))
    except ImageError as error:
        raise UsageError(f"image {path}: {error}") from None


def _named(dataset: Dataset, rows: Ints, cosines: Floats) -> list[Neighbour]:
    return [
        Neighbour(int(row), dataset.keys[row], int(dataset.labels[row]), float(cosine))
        for row, cosine in zip(rows, cosines, strict=True)
        if row >= 0
    ]
