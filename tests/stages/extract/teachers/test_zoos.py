"""Networks of timm and open_clip, where they can be imported."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import TypeAdapter
from safetensors.torch import save_file
from sklearn.datasets import load_sample_images
from torch import Tensor

from egapipe.pipeline.config.teachers import TeacherConfig
from egapipe.pipeline.errors import TeacherError, UsageError
from egapipe.stages.extract.teachers import load_teacher, open_clip, timm
from egapipe.stages.extract.teachers.weights import weights_sha256


def installed(module: str) -> Any:
    """The library, or a skip: an extension of its own built for another torch raises others."""
    try:
        return importlib.import_module(module)
    except (ImportError, RuntimeError) as error:
        return pytest.skip(f"{module} cannot be imported: {error}")


def settings(backend: str, model: str, **fields: Any) -> TeacherConfig:
    config: TeacherConfig = TypeAdapter(TeacherConfig).validate_python(
        {"backend": backend, "model": model, **fields}
    )
    return config


def photos() -> list[Image.Image]:
    return [Image.fromarray(photo) for photo in load_sample_images().images]


def encoded(config: TeacherConfig) -> Tensor:
    teacher = load_teacher(config)
    pixels = [torch.from_numpy(teacher.preprocessing.clean(photo).copy()) for photo in photos()]
    return teacher.forward(torch.stack(pixels))["embedding"]


@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_timm(name: str, tmp_path: Path) -> None:
    library = installed("timm")
    torch.manual_seed(0)
    whole = library.create_model(name)
    save_file(whole.state_dict(), tmp_path / "model.safetensors")
    pretrained = {
        "input_size": [3, 160, 160],
        "crop_pct": 0.78,
        "interpolation": "bilinear",
        "mean": [0.4, 0.5, 0.6],
        "std": [0.2, 0.3, 0.4],
        "classifier": whole.pretrained_cfg["classifier"],
    }
    config = {"architecture": name, "num_classes": 1000, "pretrained_cfg": pretrained}
    (tmp_path / "config.json").write_text(json.dumps(config))

    ours = encoded(settings("timm", f"local-dir:{tmp_path}"))
    # Loaded by timm, which resamples the positions of a ViT.
    whole = library.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    data = library.data.resolve_data_config({}, pretrained_cfg=pretrained)
    transform = library.data.create_transform(**data, is_training=False)
    with torch.inference_mode():
        features = whole.forward_features(torch.stack([transform(photo) for photo in photos()]))
        expected = whole.forward_head(features, pre_logits=True)
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4)

    whole.reset_classifier(0)
    spec = load_teacher(settings("timm", f"local-dir:{tmp_path}")).spec
    assert spec["sha256"] == weights_sha256(whole)


def test_timm_without_weights() -> None:
    installed("timm")
    with pytest.raises(TeacherError, match="cannot be loaded by timm") as error:
        load_teacher(settings("timm", "no_such_network"))
    assert "\n" not in str(error.value)


def test_open_clip(tmp_path: Path) -> None:
    library = installed("open_clip")
    tower = {"image_size": 32, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8}
    text = {"context_length": 8, "vocab_size": 9, "width": 16, "heads": 2, "layers": 1}
    config = {
        "model_cfg": {"embed_dim": 12, "vision_cfg": tower, "text_cfg": text},
        "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]},
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    name = f"local-dir:{tmp_path}"
    whole = library.create_model(name, load_weights=False).eval()
    with pytest.raises(TeacherError, match="cannot be loaded by open_clip"):
        load_teacher(settings("open_clip", name))
    save_file(whole.state_dict(), tmp_path / "open_clip_model.safetensors")

    ours = encoded(settings("open_clip", name))
    model, transform = library.create_model_from_pretrained(name)
    with torch.inference_mode():
        expected = model.eval().encode_image(torch.stack([transform(p) for p in photos()]))
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4)
    assert load_teacher(settings("open_clip", name)).spec["sha256"] == weights_sha256(whole.visual)


@pytest.mark.parametrize("backend", ["timm", "open_clip"])
def test_without_the_extra(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, backend, None)
    with pytest.raises(UsageError, match=rf"needs {backend} .*'egapipe\[{backend}\]'$") as error:
        load_teacher(settings(backend, "any"))
    assert "\n" not in str(error.value)


TIMM = {
    "input_size": (3, 224, 224),
    "crop_pct": 0.875,
    "interpolation": "bicubic",
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
}
CLIP = {
    "size": 224,
    "resize_mode": "shortest",
    "interpolation": "bicubic",
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
}


@pytest.mark.parametrize(
    ("change", "resize", "crop"),
    [
        ({}, 256, (224, 224)),
        ({"crop_mode": "squash", "crop_pct": 1.0}, (224, 224), (224, 224)),
    ],
)
def test_timms_transform(change: dict[str, Any], resize: Any, crop: Any) -> None:
    ours = timm.translate({**TIMM, **change})
    assert (ours.resize, ours.crop, ours.resample) == (resize, crop, "bicubic")


@pytest.mark.parametrize(
    ("change", "resize", "crop"),
    [
        ({}, 224, (224, 224)),
        ({"size": (224, 224)}, 224, (224, 224)),
        ({"size": (96, 64), "resize_mode": "squash"}, (96, 64), None),
    ],
)
def test_open_clips_transform(change: dict[str, Any], resize: Any, crop: Any) -> None:
    ours = open_clip.translate({**CLIP, **change})
    assert (ours.resize, ours.crop, ours.resample) == (resize, crop, "bicubic")


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        ((47, 32), (8, 0, 40, 32)),
        ((45, 32), (6, 0, 38, 32)),
        ((32, 46), (0, 7, 32, 39)),
        ((31, 29), (0, -1, 32, 31)),
    ],
)
def test_the_centre_is_torchvisions(shape: tuple[int, int], box: tuple[int, ...]) -> None:
    """Halves of a pixel go to the even side, padding begins with the smaller half."""
    noise = np.random.default_rng(0).integers(0, 256, (*shape[::-1], 3), np.uint8)
    image = Image.fromarray(noise)
    ours = open_clip.translate({**CLIP, "size": 32})
    crop = ours.centre(image, (32, 32))
    assert crop.tobytes() == image.crop(box).tobytes()


def test_transforms_that_cannot_be_expressed() -> None:
    with pytest.raises(ValueError, match="crop_mode border"):
        timm.translate({**TIMM, "crop_mode": "border"})
    with pytest.raises(ValueError, match="crop_mode center of 96 x 64"):
        timm.translate({**TIMM, "input_size": (3, 96, 64)})
    with pytest.raises(ValueError, match="no filter called random"):
        timm.translate({**TIMM, "interpolation": "random"})
    with pytest.raises(ValueError, match="resize_mode longest"):
        open_clip.translate({**CLIP, "resize_mode": "longest"})
