"""DINOv3's repositories name a processor that needs torchvision; ours does without."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch.nn.functional import interpolate

from egapipe.stages.extract.teachers import load_teacher
from egapipe.stages.extract.teachers.processor import read_preprocessing
from tests.stages.extract import models
from tests.stages.extract.teachers import families

# As in the repositories of facebook/dinov3, at the size of these tests.
CONFIG = {
    "crop_size": None,
    "data_format": "channels_first",
    "default_to_square": True,
    "do_center_crop": None,
    "do_convert_rgb": None,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "resample": 2,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": 16, "width": 16},
}


@pytest.mark.parametrize("kind", ["DINOv3ViTImageProcessorFast", "DINOv3ViTImageProcessor"])
def test_pixels_are_its_own_to_within_a_grey_level(kind: str, tmp_path: Path) -> None:
    """Rescaled, resized in float with antialiasing, then normalised: as its own processor does."""
    folder = families.dinov3_vit(tmp_path)
    config = json.dumps({**CONFIG, "image_processor_type": kind})
    (folder / "preprocessor_config.json").write_text(config)
    ours = read_preprocessing("m", str(folder), {})
    assert (ours.mean, ours.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    for photo in load_sample_images().images:
        image = torch.from_numpy(photo.copy()).permute(2, 0, 1)[None] / 255
        theirs = interpolate(image, (16, 16), mode="bilinear", antialias=True)[0]
        pixels = ours.clean(Image.fromarray(photo)) * ours.rescale
        assert np.abs(pixels - theirs.numpy()).max() < 1 / 255
    assert load_teacher(models.settings(folder)).outputs == {"embedding": (16,)}
