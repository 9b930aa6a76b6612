"""Stores of random embeddings and data sets of random images, of any size, for measurements."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from egapipe.pipeline.config.data import ViewsConfig
from egapipe.pipeline.datasets.decoding.images import Divisor
from egapipe.pipeline.datasets.fingerprint import image_digests
from egapipe.pipeline.datasets.kinds.arrays.stored import Arrays
from egapipe.pipeline.keys import NumberedKeys
from egapipe.pipeline.store import DatasetRecord, FeatureStore, Manifest
from egapipe.pipeline.store.format.stored import StoredViews
from egapipe.pipeline.views import plan_hash

MEAN, STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)


class Whole(ABC):
    """What a data set says of itself of which all rows are chosen."""

    numbered = False
    arrays: Arrays | None = None
    notes: Sequence[str] = ()

    @property
    def chosen(self) -> npt.NDArray[np.int64]:
        """All rows."""
        return np.arange(len(self))

    @property
    def source_rows(self) -> int:
        """The same."""
        return len(self)

    def array(self, row: int) -> npt.NDArray[Any]:
        """Raises TypeError: its rows are images."""
        raise TypeError(f"row {row} is an image")

    def for_workers(self, keys: Sequence[str]) -> Self:
        """As it is."""
        del keys
        return self

    def extents(self, rows: Sequence[int]) -> None:
        """None: they are not in files."""
        del rows

    def learn(self, extents: None) -> None:
        """Nothing."""
        del extents

    @abstractmethod
    def __len__(self) -> int: ...


class NoiseImages(Whole):
    """Random RGB images, all different, decoded from memory."""

    name = "noise"

    def __init__(self, rows: int, side: int, classes: int) -> None:
        rng = np.random.default_rng(0)
        self.pixels = rng.integers(0, 256, (rows, side, side, 3), dtype=np.uint8)
        self.labels: npt.NDArray[np.int64] = rng.integers(0, classes, rows)
        self.keys: Sequence[str] = NumberedKeys([("noise/", range(rows))], 8)
        self.classes: list[str] | None = [str(i) for i in range(classes)]

    @property
    def label_numbers(self) -> npt.NDArray[np.int64]:
        """The labels."""
        return self.labels

    def __len__(self) -> int:
        return len(self.pixels)

    def encoded(self, row: int) -> bytes:
        """The pixels' bytes."""
        return bytes(self.pixels[row].tobytes())

    def image(
        self, row: int, divisor: Divisor | None = None, data: bytes | None = None
    ) -> Image.Image:
        """The RGB image of a row."""
        return Image.fromarray(self.pixels[row])

    def fingerprint(self) -> str:
        """A name for what `__init__` makes of its arguments."""
        return f"noise-{self.pixels.shape}"

    def digests(self, rows: int) -> list[bytes]:
        """Of the pixels."""
        return image_digests(self, rows)


def noise_store(folder: Path, rows: int, dim: int, views: ViewsConfig) -> FeatureStore:
    """A finished float16 store of standard normal embeddings."""
    manifest = Manifest(
        dataset=DatasetRecord(name="noise", fingerprint="noise", rows=rows),
        teacher={"backend": "noise"},
        preprocessing={"mean": list(MEAN), "std": list(STD)},
        views=StoredViews.of(views),
        views_hash=plan_hash(views),
        outputs={"embedding": (dim,)},
        dtype="float16",
        shard_rows=4096,
        versions={},
    )
    index = pa.table(
        {
            "row": pa.array(range(rows), pa.int64()),
            "key": [f"noise/{row:08d}" for row in range(rows)],
            "label": pa.array([-1] * rows, pa.int64()),
            "source": ["noise"] * rows,
        }
    )
    store = FeatureStore.create(str(folder / "noise.zarr"), manifest, index)
    rng = np.random.default_rng(0)
    for shard, part in enumerate(store.shards):
        shape = (len(part), views.count + 1, dim)
        store.write_shard(shard, {"embedding": rng.standard_normal(shape, dtype=np.float32)})
    store.finish()
    return store
