"""What `auto` takes from each family is what its authors take as the embedding of an image."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor

from egapipe.stages.extract.teachers import load_teacher
from tests.stages.extract import models
from tests.stages.extract.teachers import families

Build = Callable[[Path], Path]
Embed = Callable[[Any, dict[str, Tensor]], Tensor]


def image_features(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """What a text-and-image model compares with its texts; newer versions wrap it."""
    features = model.get_image_features(**inputs)
    return features if isinstance(features, Tensor) else features.pooler_output


def image_embeds(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    return model(**inputs).image_embeds


def class_token(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    return model(**inputs).last_hidden_state[:, 0]


def pooler_output(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    return model(**inputs).pooler_output


def patch_mean(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    return model(**inputs).last_hidden_state[:, -models.PATCHES :].mean(dim=1)


t = transformers
FAMILIES: dict[str, tuple[Build, type, str, Embed]] = {
    "CLIP": (models.clip, t.CLIPModel, "projection", image_features),
    "CLIP, image tower": (
        models.clip_vision,
        t.CLIPVisionModelWithProjection,
        "projection",
        image_embeds,
    ),
    "SigLIP": (families.siglip, t.SiglipModel, "pooler", image_features),
    "SigLIP, image tower": (models.siglip, t.SiglipVisionModel, "pooler", pooler_output),
    "DINOv2": (models.dinov2, t.Dinov2Model, "cls", class_token),
    "DINOv2, registers": (
        models.dinov2_with_registers,
        t.Dinov2WithRegistersModel,
        "cls",
        class_token,
    ),
    "DINOv3": (families.dinov3_vit, t.DINOv3ViTModel, "cls", class_token),
    "DINOv3, ConvNeXt": (families.dinov3_convnext, t.DINOv3ConvNextModel, "pooler", pooler_output),
    "DeiT": (families.deit, t.DeiTModel, "cls", class_token),
    "MSN": (families.vit_msn, t.ViTMSNModel, "cls", class_token),
    "I-JEPA": (families.ijepa, t.IJepaModel, "mean", patch_mean),
}


def photos() -> list[Image.Image]:
    whole = [Image.fromarray(photo) for photo in load_sample_images().images]
    return [*whole, *(photo.crop((100, 50, 340, 400)) for photo in whole)]


@pytest.mark.parametrize("family", FAMILIES)
def test_auto_is_the_embedding_of_the_familys_own_class(family: str, tmp_path: Path) -> None:
    build, kind, pooling, embed = FAMILIES[family]
    folder = build(tmp_path)
    teacher = load_teacher(models.settings(folder))
    assert teacher.spec["resolved_pooling"] == pooling

    pixels = [torch.from_numpy(teacher.preprocessing.clean(photo).copy()) for photo in photos()]
    ours = teacher.forward(torch.stack(pixels))["embedding"]
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    with torch.inference_mode():
        inputs = processor(images=photos(), return_tensors="pt")
        expected = embed(kind.from_pretrained(folder).eval(), inputs)  # type: ignore[attr-defined]
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
    assert torch.cdist(expected, expected).fill_diagonal_(torch.inf).min() > 1e-4


@pytest.mark.parametrize("build", [models.dinov2_with_registers, families.dinov3_vit])
def test_the_mean_leaves_out_the_class_token_and_the_registers(
    build: Build, tmp_path: Path
) -> None:
    folder = build(tmp_path)
    teacher = load_teacher(models.settings(folder, pooling="mean"))
    pixels = torch.from_numpy(teacher.preprocessing.clean(photos()[0]).copy())[None]
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        expected = patch_mean(model, processor(images=photos()[:1], return_tensors="pt"))
    ours = teacher.forward(pixels)["embedding"]
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
