"""What is stored beside the embedding: logits, and grids of patches."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from egapipe.pipeline.config.teachers import OnnxTeacher, PythonTeacher
from egapipe.pipeline.errors import TeacherError
from egapipe.stages.extract.teachers import Outputs, Teacher, load_teacher
from tests.stages.extract import models
from tests.stages.extract.teachers import graphs, networks

CLASSES = 3
Make = Callable[[Path], Path]


def pixels(side: int, count: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)


def normalised(teacher: Teacher, images: Tensor) -> Tensor:
    settings = teacher.preprocessing.to_json()
    mean, std = (torch.tensor(settings[key]).view(3, 1, 1) for key in ("mean", "std"))
    return (images * settings["rescale"] - mean) / std


def near(one: Tensor, other: Tensor) -> None:
    """The same sums of numbers of this size, possibly in another order."""
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(other.detach().abs().max()))


def vit(folder: Path) -> Path:
    torch.manual_seed(0)
    config = transformers.ViTConfig(**models._MLP, num_labels=CLASSES)  # type: ignore[call-arg]
    return models.save(transformers.ViTForImageClassification(config), folder, "vit")


def dinov2(folder: Path) -> Path:
    """Its classifier reads the class token beside the mean of the patches."""
    torch.manual_seed(0)
    config = transformers.Dinov2Config(**models._TRANSFORMER, num_labels=CLASSES)  # type: ignore[call-arg]
    return models.save(transformers.Dinov2ForImageClassification(config), folder, "dinov2")


def siglip(folder: Path) -> Path:
    torch.manual_seed(0)
    vision = {k: v for k, v in models._MLP.items() if k != "initializer_range"}
    config = transformers.SiglipConfig(vision_config=vision, num_labels=CLASSES)  # type: ignore[call-arg]
    return models.save(transformers.SiglipForImageClassification(config), folder, "siglip")


def clip(folder: Path) -> Path:
    torch.manual_seed(0)
    config = transformers.CLIPConfig(  # type: ignore[call-arg]
        vision_config={**models._MLP, "initializer_factor": 10.0}, num_labels=CLASSES
    )
    return models.save(transformers.CLIPForImageClassification(config), folder, "clip")


def convnext(folder: Path) -> Path:
    torch.manual_seed(0)
    config = transformers.ConvNextConfig(  # type: ignore[call-arg]
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        initializer_range=0.3,
        num_labels=CLASSES,
    )
    return models.save(transformers.ConvNextForImageClassification(config), folder, "convnext")


CLASSIFIERS: list[Make] = [vit, dinov2, siglip, clip, convnext]


@pytest.mark.parametrize("make", CLASSIFIERS)
def test_logits_are_those_of_the_models_own_classifier(make: Make, tmp_path: Path) -> None:
    folder = make(tmp_path)
    teacher = load_teacher(models.settings(folder, logits=True, pooling="mean"))
    images = pixels(teacher.preprocessing.shape[1])
    found = teacher.forward(images)
    whole = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        near(found["logits"], whole(pixel_values=normalised(teacher, images)).logits)
    assert teacher.outputs["logits"] == (CLASSES,)


# CLIP's classifier is saved without the projection, which its own embedding needs.
@pytest.mark.parametrize("make", [make for make in CLASSIFIERS if make is not clip])
def test_the_embedding_is_the_same_with_and_without(make: Make, tmp_path: Path) -> None:
    folder = make(tmp_path)
    plain, more = (
        load_teacher(models.settings(folder, pooling="mean", **fields))
        for fields in ({}, {"logits": True, "grid": 1})
    )
    images = pixels(plain.preprocessing.shape[1])
    found = more.forward(images)
    assert torch.equal(found["embedding"], plain.forward(images)["embedding"])
    # One cell is the mean of all patches.
    near(found["grid"].flatten(1), found["embedding"])
    assert plain.spec["sha256"] != more.spec["sha256"]  # the classifier is one of its weights


@pytest.mark.parametrize("make", [models.vit, models.clip, models.dinov2_with_registers])
def test_a_grid_is_of_the_patch_tokens(make: Make, tmp_path: Path) -> None:
    teacher = load_teacher(models.settings(make(tmp_path), grid=models.SIDE // models.PATCH))
    images = pixels(models.SIDE)
    model = transformers.AutoModel.from_pretrained(tmp_path)
    tower = getattr(model, "vision_model", model).eval()
    with torch.inference_mode():
        tokens = tower(pixel_values=normalised(teacher, images)).last_hidden_state
    grid = teacher.forward(images)["grid"]
    near(grid.flatten(2).transpose(1, 2), tokens[:, -models.PATCHES :])


def test_logits_of_weights_without_a_classifier_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match=r"of ViTModel, no classifier: set teacher.logits=false"):
        load_teacher(models.settings(models.vit(tmp_path), logits=True))


def test_a_grid_finer_than_the_patches_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match=r"set teacher.grid to at most 4"):
        load_teacher(models.settings(models.vit(tmp_path), grid=5))


def onnx(folder: Path, batch: int | str = "batch", **fields: Any) -> Teacher:
    pytest.importorskip("onnxruntime")
    model = str(graphs.save(folder, batch=batch))
    return load_teacher(
        OnnxTeacher(backend="onnx", model=model, preprocessing=graphs.TRANSFORM, **fields)
    )


@pytest.mark.parametrize("batch", ["batch", 2])
@pytest.mark.parametrize("output", ["tokens", "maps"])
def test_an_onnx_file_gives_several_of_its_tensors(
    output: str, batch: int | str, tmp_path: Path
) -> None:
    teacher = onnx(
        tmp_path, batch, output=output, logits="logits", pooling="mean", prefix_tokens=0, grid=4
    )
    images = pixels(graphs.SIDE)
    found, expected = teacher.forward(images), graphs.expected(images)
    near(found["embedding"], expected["vector"])
    near(found["logits"], expected["logits"])
    near(found["grid"], expected["maps"])
    assert teacher.outputs == {"embedding": (8,), "grid": (8, 4, 4), "logits": (5,)}


def test_an_onnx_embedding_may_be_the_logits(tmp_path: Path) -> None:
    found = onnx(tmp_path, logits="logits").forward(pixels(graphs.SIDE))
    assert torch.equal(found["embedding"], found["logits"])


def test_an_onnx_tensor_that_is_not_there_is_named_with_its_setting(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match=r"called logit: set teacher.logits .* logits"):
        onnx(tmp_path, logits="logit")
    with pytest.raises(TeacherError, match=r"logits are \[2, 16, 8\], not one number a class"):
        onnx(tmp_path, logits="tokens")


def python(name: str, **fields: Any) -> Teacher:
    return load_teacher(
        PythonTeacher(
            backend="python",
            model=f"{networks.__name__}:{name}",
            preprocessing={"size": 16},
            **fields,
        )
    )


def test_submodules_of_a_network_give_what_is_asked_for() -> None:
    teacher = python("Classifier", output="maps.1", logits="head", pooling="mean", grid=3)
    images = pixels(16)
    with torch.inference_mode():
        network = networks.Classifier().eval()
        maps = network.maps(normalised(teacher, images))
    found = teacher.forward(images)
    near(found["embedding"], maps.mean(dim=(2, 3)))
    near(found["grid"], nn.functional.adaptive_avg_pool2d(maps, 3))
    near(found["logits"], network.head(maps.mean(dim=(2, 3))))


def test_of_a_submodule_that_is_called_twice_the_last_call_counts() -> None:
    teacher = python("Classifier", output="act", pooling="mean")
    images = pixels(16)
    with torch.inference_mode():
        maps = networks.Classifier().eval().maps(normalised(teacher, images))
    near(teacher.forward(images)["embedding"], maps.relu().mean(dim=(2, 3)))


def test_threads_that_run_one_network_do_not_mix_their_outputs() -> None:
    teacher = python("Classifier", output="maps.1", logits="head", pooling="mean")
    batches = [pixels(16, count) for count in range(1, 33)]
    alone = [teacher.forward(batch) for batch in batches]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(teacher.forward, batches))
    for one, other in zip(alone, together, strict=True):
        for name in ("embedding", "logits"):
            assert one[name].shape == other[name].shape
            near(one[name], other[name])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"output": "map"}, "none of its 6 submodules is called map: did you mean maps"),
        ({"output": "unused"}, "does not call the submodule of teacher.output"),
        ({"logits": "maps.1", "pooling": "auto"}, r"logits are \[2, 8, 7, 7\], not one number"),
        ({"logits": "head", "grid": 2}, "has no places: teacher.grid needs one of tokens or maps"),
    ],
)
def test_submodules_that_do_not_fit_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(TeacherError, match=said):
        python("Classifier", **fields)


def test_an_argument_may_be_a_file_of_a_package() -> None:
    file = "package:pytest/__init__.py"
    name = f"{networks.__name__}:seeded_by_file"
    teacher = load_teacher(
        PythonTeacher(backend="python", model=name, preprocessing={"size": 16}, args={"path": file})
    )
    assert teacher.spec["args"] == {"path": file}  # the same on every machine
    with pytest.raises(TeacherError, match=r"nothing\.json is no file; teacher.args.path is the"):
        python("seeded_by_file", args={"path": file.replace("__init__.py", "nothing.json")})


def test_outputs_are_named_in_one_order(tmp_path: Path) -> None:
    found: Outputs = load_teacher(models.settings(vit(tmp_path), logits=True, grid=2)).forward(
        pixels(models.SIDE)
    )
    assert {name: tuple(value.shape[1:]) for name, value in found.items()} == {
        "embedding": (16,),
        "grid": (16, 2, 2),
        "logits": (CLASSES,),
    }
