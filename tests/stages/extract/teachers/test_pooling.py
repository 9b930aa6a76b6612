"""Every pooling gives what the model's own interface gives for the model's own preprocessing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor

from egapipe.pipeline.errors import TeacherError
from egapipe.stages.extract.teachers import load_teacher
from tests.stages.extract import models

Read = Callable[[Any], Tensor]


def photos() -> list[Image.Image]:
    """Two photographs, and upright crops of them."""
    whole = [Image.fromarray(photo) for photo in load_sample_images().images]
    return [*whole, *(photo.crop((100, 50, 340, 400)) for photo in whole)]


def encoded(folder: Path, pooling: str, **fields: Any) -> Tensor:
    """[4, D] of our teacher."""
    teacher = load_teacher(models.settings(folder, pooling=pooling, **fields))
    pixels = [torch.from_numpy(teacher.preprocessing.clean(photo).copy()) for photo in photos()]
    return teacher.forward(torch.stack(pixels))["embedding"]


def own(folder: Path, model: Any, read: Read) -> Tensor:
    """[4, D] of the model's class and its image processor."""
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    inputs = processor(images=photos(), return_tensors="pt")
    with torch.inference_mode():
        return read(model.from_pretrained(folder).eval()(**inputs))


def token(output: Any) -> Tensor:
    return output.last_hidden_state[:, 0]


def patches(output: Any) -> Tensor:
    """The mean over the patch tokens, which are the last ones."""
    return output.last_hidden_state[:, -models.PATCHES :].mean(dim=1)


def pooled(output: Any) -> Tensor:
    return output.pooler_output.flatten(1)


def projected(output: Any) -> Tensor:
    return output.image_embeds


CLIP = transformers.CLIPVisionModelWithProjection
CASES = {
    "vit cls": (models.vit, transformers.ViTModel, token),
    "vit mean": (models.vit, transformers.ViTModel, patches),
    "vit pooler": (models.vit, transformers.ViTModel, pooled),
    "clip projection": (models.clip, CLIP, projected),
    "clip cls": (models.clip, transformers.CLIPVisionModel, token),
    "clip mean": (models.clip, transformers.CLIPVisionModel, patches),
    "clip pooler": (models.clip, transformers.CLIPVisionModel, pooled),
    "clip_vision projection": (models.clip_vision, CLIP, projected),
    "dinov2 cls": (models.dinov2, transformers.Dinov2Model, token),
    "dinov2 mean": (models.dinov2, transformers.Dinov2Model, patches),
    "dinov2 pooler": (models.dinov2, transformers.Dinov2Model, pooled),
    "dinov2_with_registers mean": (
        models.dinov2_with_registers,
        transformers.Dinov2WithRegistersModel,
        patches,
    ),
    "siglip pooler": (models.siglip, transformers.SiglipVisionModel, pooled),
    "siglip mean": (models.siglip, transformers.SiglipVisionModel, patches),
    "convnext pooler": (models.convnext, transformers.ConvNextModel, pooled),
    "convnext mean": (
        models.convnext,
        transformers.ConvNextModel,
        lambda output: output.last_hidden_state.mean(dim=(2, 3)),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_pooling_is_what_the_model_itself_gives(case: str, tmp_path: Path) -> None:
    build, model, read = CASES[case]
    folder = build(tmp_path)
    expected = own(folder, model, read)
    ours = encoded(folder, case.split()[1])
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
    assert torch.cdist(expected, expected).fill_diagonal_(torch.inf).min() > 1e-3


def test_a_masked_autoencoder_sees_the_whole_image(tmp_path: Path) -> None:
    """Told to keep all patches, its own class still shuffles them; the class token sees a set."""
    folder = models.vit_mae(tmp_path)
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    model = transformers.ViTMAEModel.from_pretrained(folder, mask_ratio=0.0).eval()
    with torch.inference_mode():
        expected = token(model(**processor(images=photos(), return_tensors="pt")))
    torch.testing.assert_close(encoded(folder, "cls"), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("build", "pooling"),
    [
        (models.vit, "cls"),
        (models.vit_mae, "cls"),
        (models.clip, "projection"),
        (models.clip_vision, "projection"),
        (models.dinov2, "cls"),
        (models.siglip, "pooler"),
        (models.convnext, "pooler"),
    ],
)
def test_auto_is_what_the_family_was_trained_with(
    build: Callable[[Path], Path], pooling: str, tmp_path: Path
) -> None:
    folder = build(tmp_path)
    teacher = load_teacher(models.settings(folder))
    assert (teacher.spec["pooling"], teacher.spec["resolved_pooling"]) == ("auto", pooling)
    assert torch.equal(encoded(folder, "auto"), encoded(folder, pooling))


@pytest.mark.parametrize(
    ("build", "pooling", "possible"),
    [
        (models.vit, "projection", "mean, cls, pooler"),
        (models.siglip, "cls", "mean, pooler"),
        (models.convnext, "cls", "mean, pooler"),
        (models.dinov2, "projection", "mean, cls, pooler"),
    ],
)
def test_a_pooling_that_a_model_lacks_is_refused_with_those_it_has(
    build: Callable[[Path], Path], pooling: str, possible: str, tmp_path: Path
) -> None:
    with pytest.raises(TeacherError, match=rf"no {pooling} output: set .* to {possible}$") as error:
        load_teacher(models.settings(build(tmp_path), pooling=pooling))
    assert "\n" not in str(error.value)


def test_a_missing_pooler_is_not_needed_for_the_class_token_and_refused_for_the_pooler(
    tmp_path: Path,
) -> None:
    """Checkpoints of classifiers lack the pooler; the library would draw it at random."""
    config = models.vit_model().config
    whole = transformers.ViTForImageClassification(config)
    folder = models.save(whole, tmp_path, "vit")
    inner = models.save(whole.vit, tmp_path / "inner", "vit")
    torch.testing.assert_close(encoded(folder, "cls"), own(inner, transformers.ViTModel, token))
    with pytest.raises(TeacherError, match=r"lacks 2 of ViTModel's weights \(pooler.*cls or mean"):
        load_teacher(models.settings(folder, pooling="pooler"))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precision_is_near_and_not_the_same(precision: str, tmp_path: Path) -> None:
    folder = models.vit(tmp_path)
    exact, low = encoded(folder, "cls"), encoded(folder, "cls", precision=precision)
    assert low.dtype == torch.float32
    assert not torch.equal(low, exact)
    cosine = torch.nn.functional.cosine_similarity(low, exact)
    assert cosine.min() > 0.99
