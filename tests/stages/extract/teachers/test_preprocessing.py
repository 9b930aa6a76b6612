"""The pixels of our preprocessing are those of the model's own image processor."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import transformers
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from egapipe.pipeline.errors import ImageError, TeacherError
from egapipe.pipeline.views import View
from egapipe.stages.extract.teachers import Preprocessing
from egapipe.stages.extract.teachers.processor import read_preprocessing
from tests.stages.extract.models import PROCESSORS


def real_images() -> list[Image.Image]:
    """Photographs as files hold them, tall, wide, square and small, and a digit of 8 x 8 pixels."""
    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    boxes = [(0, 0, 640, 427), (10, 20, 210, 420), (0, 0, 300, 299), (300, 100, 317, 111)]
    crops = [photo.crop(box) for photo in photos for box in boxes]
    digit = np.uint8(load_digits().images[0] * 15.9375)
    return [*map(through_a_jpeg_file, crops), Image.fromarray(digit).convert("RGB")]


def through_a_jpeg_file(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return Image.open(file).convert("RGB")


def write(folder: Path, **config: object) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
    return str(folder)


def normalised(preprocessing: Preprocessing, image: Image.Image) -> np.ndarray:
    mean, std = (np.array(v)[:, None, None] for v in (preprocessing.mean, preprocessing.std))
    return (preprocessing.clean(image) * preprocessing.rescale - mean) / std


VARIANTS = {
    **PROCESSORS,
    "convnext squeezed": {**PROCESSORS["convnext"], "size": {"shortest_edge": 384}},
    "vit in -1..1": {**PROCESSORS["vit"], "rescale_factor": 1 / 127.5, "image_mean": [1, 1, 1]},
    "vit not normalised": {**PROCESSORS["vit"], "do_normalize": False},
    "dinov2 crop above resize": {**PROCESSORS["dinov2"], "size": {"shortest_edge": 12}},
    "dinov2 odd sizes": {
        **PROCESSORS["dinov2"],
        "size": {"shortest_edge": 37},
        "crop_size": {"height": 21, "width": 30},
    },
}


@pytest.mark.parametrize("name", VARIANTS)
def test_pixels_are_those_of_the_models_processor(name: str, tmp_path: Path) -> None:
    source = write(tmp_path, **VARIANTS[name])
    preprocessing = read_preprocessing("m", source, {})
    processor = transformers.AutoImageProcessor.from_pretrained(source, backend="pil")
    for image in real_images():
        theirs = processor(images=image, return_tensors="np")["pixel_values"][0]
        ours = normalised(preprocessing, image)
        assert ours.shape == theirs.shape == (3, *preprocessing.input_size)
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_view_is_cropped_and_flipped_before_it_is_resized(tmp_path: Path) -> None:
    preprocessing = read_preprocessing("m", write(tmp_path, **PROCESSORS["dinov2"]), {})
    image = real_images()[0]
    pixels = preprocessing.view(image, View(top=30, left=200, height=100, width=180, flip=True))
    box = image.crop((200, 30, 380, 130)).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    expected = np.asarray(box.resize((16, 16), Image.Resampling.BICUBIC))
    assert np.array_equal(pixels, expected.transpose(2, 0, 1))


def test_an_extremely_narrow_image_is_unreadable_instead_of_gigabytes(tmp_path: Path) -> None:
    preprocessing = read_preprocessing("m", write(tmp_path, **PROCESSORS["dinov2"]), {})
    with pytest.raises(ImageError, match="20000 x 2 pixels are too narrow"):
        preprocessing.clean(Image.new("RGB", (20_000, 2)))


REFUSED = {
    "no file": ({}, "has no preprocessor_config.json that can be read"),
    "no fixed size": (
        {**PROCESSORS["clip"], "do_center_crop": False},
        "the input size is not fixed",
    ),
    "longest edge": (
        {**PROCESSORS["vit"], "size": {"shortest_edge": 20, "longest_edge": 30}},
        "cannot be used",
    ),
    "pads": (
        {"image_processor_type": "VideoMAEImageProcessor", "size": {"shortest_edge": 16}},
        "cannot be used|does more",
    ),
    "colour clusters": (
        {"image_processor_type": "ImageGPTImageProcessor", "clusters": [[0.0, 0.0, 0.0]]},
        "cannot be used|does more",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_reproduced_exactly_is_refused(name: str, tmp_path: Path) -> None:
    config, message = REFUSED[name]
    source = write(tmp_path, **config) if config else str(tmp_path)
    with pytest.raises(TeacherError, match=f"teacher my-model.*({message})") as error:
        read_preprocessing("my-model", source, {})
    assert "\n" not in str(error.value)
