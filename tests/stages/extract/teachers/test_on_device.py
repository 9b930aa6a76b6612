"""Images that a teacher resizes on its device: nearly the pixels of decoding, another store."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from egapipe.pipeline.errors import ImageError, StoreError, UsageError
from egapipe.pipeline.store import FeatureStore
from egapipe.pipeline.views import View
from egapipe.stages import extract
from egapipe.stages.extract.teachers import Preprocessing, load_teacher
from egapipe.stages.extract.teachers.canvas import Canvas
from egapipe.stages.extract.teachers.on_device import OnDevice
from egapipe.stages.extract.teachers.torchvision_crop import TorchvisionPreprocessing
from egapipe.stages.extract.verifying.verify import verify_store
from tests.stages.extract import models
from tests.stages.extract.conftest import MakeConfig

SIZES = [(97, 61), (48, 75), (23, 23), (120, 120)]
SIDE = 128


class Pixels:
    """A teacher of which only the transform counts."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.spec = {"model": "pixels", "precision": "float32"}
        self.preprocessing = preprocessing
        self.outputs = {"embedding": (1,)}


def transform(kind: type[Preprocessing], resample: str, **fields: object) -> Preprocessing:
    own = {"resize": 40, "crop": (33, 32)} | fields
    return kind(resample=resample, rescale=1 / 255, mean=(0, 0, 0), std=(1, 1, 1), **own)  # type: ignore[arg-type]


def images() -> list[Image.Image]:
    coarse = [
        Image.fromarray(noise)
        for noise in np.random.default_rng(0).integers(0, 256, (4, 6, 6, 3), np.uint8)
    ]
    return [
        c.resize((w, h), Image.Resampling.BICUBIC) for c, (h, w) in zip(coarse, SIZES, strict=True)
    ]


@pytest.mark.parametrize("resample", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(
    "fields",
    [{}, {"resize": (32, 32), "crop": None}, {"resize": 20}, {"resize": None, "crop": (50, 50)}],
    ids=["shortest edge", "squashed", "larger than the image", "cropped alone"],
)
@pytest.mark.parametrize("kind", [Preprocessing, TorchvisionPreprocessing])
def test_a_batch_of_any_sizes_is_what_decoding_makes_of_each(
    kind: type[Preprocessing], fields: dict[str, object], resample: str
) -> None:
    inner = transform(kind, resample, **fields)
    teacher = OnDevice(Pixels(inner), SIDE)  # type: ignore[arg-type]
    view = View(top=-3, left=2, height=20, width=17, flip=True)
    cases: list[tuple[Callable[[Image.Image], np.ndarray], Callable[[Image.Image], np.ndarray]]] = [
        (teacher.preprocessing.clean, inner.clean),
        (lambda image: teacher.preprocessing.view(image, view), lambda i: inner.view(i, view)),
    ]
    for packed, expected in cases:
        batch = torch.from_numpy(np.stack([packed(image) for image in images()]))
        found = teacher.pixels(batch).numpy().astype(int)
        wanted = np.stack([expected(image) for image in images()]).astype(int)
        difference = np.abs(found - wanted)
        assert (difference > 1).mean() < 0.01
        assert difference.mean() < 0.3


@pytest.mark.parametrize("resample", ["bilinear", "bicubic", "lanczos", "hamming"])
def test_an_image_has_the_same_pixels_in_any_batch(resample: str) -> None:
    """Where memory ran out, images meet in smaller ones."""
    teacher = OnDevice(Pixels(transform(Preprocessing, resample)), SIDE)  # type: ignore[arg-type]
    batch = torch.from_numpy(np.stack([teacher.preprocessing.clean(i) for i in images() * 5]))
    whole = teacher.pixels(batch)
    for size in (1, 2, 7):
        assert torch.equal(torch.cat([teacher.pixels(part) for part in batch.split(size)]), whole)


def test_a_larger_image_is_brought_to_the_square_before() -> None:
    canvas = Canvas(transform(Preprocessing, "bicubic"), 64)
    image = images()[0]
    numbers = canvas.clean(image)[:8].view("<i2")
    assert numbers.tolist() == [64, 40, 63, 40]
    assert pickle.loads(pickle.dumps(canvas)).shape == (12 + 64 * 64 * 3,)  # noqa: S301
    with pytest.raises(ImageError, match="too narrow"):
        canvas.clean(Image.new("RGB", (500, 2)))


def test_a_store_of_it_is_another_one_and_can_be_verified(quick: MakeConfig, images_: Path) -> None:
    sure = ["extract.max_failures=1"]
    config = quick(*sure, "extract.canvas=32", f"dataset.train={{kind: folder, path: {images_}}}")
    report = extract.run(config, split="train", local=True)
    assert report.failures == 1
    store = FeatureStore.open(report.url)
    assert store.manifest.preprocessing["canvas"] == 32
    assert "canvas" not in load_teacher(config.teacher).preprocessing.to_json()
    assert verify_store(config, split="train", count=9).ok
    other = quick(*sure, f"dataset.train={{kind: folder, path: {images_}}}")
    with pytest.raises(StoreError, match=r"preprocessing\.canvas"):
        extract.run(other, split="train", local=True)


@pytest.fixture
def images_(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number, image in enumerate(images() * 3):
        image.save(folder / f"{number:02}.png")
    (folder / "05.png").write_bytes(b"no image")
    return folder


def test_what_cannot_be_resized_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nearest filter, which is only done while"):
        Canvas(transform(Preprocessing, "nearest"), 8)
    teacher = load_teacher(models.settings(models.vit(tmp_path)))
    with pytest.raises(UsageError, match="is for one teacher"):
        OnDevice(OnDevice(teacher, 32), 32)
