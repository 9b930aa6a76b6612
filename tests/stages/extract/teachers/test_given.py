"""An evaluation transform that only the configuration knows."""

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from sklearn.datasets import load_sample_image

from egapipe.pipeline.config.teachers import Transform
from egapipe.stages.extract.teachers.given import preprocessing_of


def photo() -> Image.Image:
    """640 x 427."""
    return Image.fromarray(load_sample_image("flower.jpg"))


def test_without_resize_the_whole_image_becomes_the_input() -> None:
    pixels = preprocessing_of(Transform(size=(20, 30), resample="bilinear")).clean(photo())
    expected = photo().resize((30, 20), Image.Resampling.BILINEAR)
    assert np.array_equal(pixels, np.asarray(expected).transpose(2, 0, 1))


def test_with_resize_the_centre_is_cropped_from_the_shortest_edge() -> None:
    pixels = preprocessing_of(Transform(size=32, resize=40)).clean(photo())
    resized = photo().resize((59, 40), Image.Resampling.BICUBIC)
    expected = resized.crop((13, 4, 45, 36))
    assert np.array_equal(pixels, np.asarray(expected).transpose(2, 0, 1))


def test_mean_and_std_are_for_images_of_0_to_1() -> None:
    ours = preprocessing_of(Transform(size=8, mean=(0.0, 0.5, 1.0), std=(1.0, 2.0, 3.0)))
    assert (ours.mean, ours.std, ours.rescale) == ((0.0, 0.5, 1.0), (1.0, 2.0, 3.0), 1 / 255)


@pytest.mark.parametrize(
    "fields", [{}, {"size": 0}, {"size": [8]}, {"size": 8, "std": [0, 1, 1]}, {"size": 8, "x": 1}]
)
def test_a_transform_that_is_none_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Transform.model_validate(fields)
