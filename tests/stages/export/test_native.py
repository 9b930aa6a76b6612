"""A checkpoint of another library loads there alone, and says what the student says."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import egapipe
from egapipe.pipeline.errors import UsageError
from egapipe.stages.distill.data.inputs.images import Frame
from egapipe.stages.distill.model.student import Head
from egapipe.stages.distill.students import build_student
from egapipe.stages.export.native import write_native
from egapipe.stages.export.native.folded import fold
from egapipe.stages.export.weights import write_safetensors
from egapipe.stages.export.written import Order, arrays
from egapipe.stages.predict import clean_view
from tests.stages.export.alone import run_alone
from tests.stages.export.students import NAMES, order_of

VIT = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}


@pytest.mark.parametrize("dim", [16, None])
def test_two_linear_maps_are_one(dim: int | None) -> None:
    torch.manual_seed(0)
    head = Head(24, dim, 7)
    features = torch.randn(9, 24)
    weight, bias = fold(head)
    assert weight.shape == (7, 24)
    _, logits = head.double()(features.double())
    found = features @ weight.T + bias
    assert found.detach().numpy() == pytest.approx(logits.detach().numpy(), rel=1e-6, abs=1e-6)


def written(order: Order, pixels: torch.Tensor | None = None) -> np.ndarray:
    """The logits of the checkpoint, which are those of the student."""
    images = order.calibration if pixels is None else pixels
    done = write_native(order)
    assert done.outputs == ("logits",)
    expected = arrays(order.module)(images)[0]
    [logits] = done.run(images)
    assert logits == pytest.approx(expected, rel=1e-4, abs=1e-4 * float(np.abs(expected).max()))
    return expected


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("resnet18", {}),
        # Each one more is ten seconds of another library's start.
        pytest.param("transformers:vit", VIT, marks=pytest.mark.slow),
        pytest.param("resnet50", {}, marks=pytest.mark.slow),
        pytest.param("transformers:deit", VIT, marks=pytest.mark.slow),
        pytest.param("transformers:mobilenet_v2", {}, marks=pytest.mark.slow),
    ],
)
def test_transformers_alone_classifies_a_picture(
    name: str, args: dict[str, Any], tmp_path: Path
) -> None:
    order = order_of(name, args, tmp_path)
    picture = Image.fromarray(order.calibration[0].permute(1, 2, 0).numpy()).resize((60, 40))
    picture.save(tmp_path / "photo.png")
    [expected] = written(order, clean_view(picture, Frame((32, 32)))[None])
    shown = run_alone(
        """
import json
from transformers import AutoModelForImageClassification, pipeline
model = AutoModelForImageClassification.from_pretrained("transformers")
classify = pipeline("image-classification", "transformers", device="cpu")
found = {one["label"]: one["score"] for one in classify("photo.png", top_k=5)}
print(json.dumps([model.config.model_type, model.config.id2label[3], found]))
""",
        tmp_path,
    )
    kind, label, found = json.loads(shown.splitlines()[-1])
    assert kind == (name.partition(":")[2] or "resnet")
    assert label == "cat (3)"
    probabilities = torch.from_numpy(expected).softmax(dim=0).tolist()
    # Pixels may differ by one level: transformers has more than one way to resize.
    assert [found[n] for n in ("ant", "bee", "cat", "cat (3)", "elk")] == pytest.approx(
        probabilities, abs=0.02
    )


def needs(library: str) -> None:
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")


@pytest.mark.parametrize("name", ["timm:resnet18", "timm:vit_tiny_patch16_224"])
def test_timm_alone_loads_its_keys(name: str, tmp_path: Path) -> None:
    needs("timm")
    args = {"img_size": 32} if "vit" in name else {}
    order = order_of(name, {**args, "pretrained": False}, tmp_path)
    expected = written(order)
    images = (order.calibration.float() / 255 - 0.5) / 0.25
    np.save(tmp_path / "images.npy", order.calibration.numpy())
    assert images.shape[-1] == 32
    shown = run_alone(
        """
import json, numpy, timm, torch
network = timm.create_model("local-dir:timm", pretrained=True).eval()
data = timm.data.resolve_model_data_config(network)
images = torch.from_numpy(numpy.load("images.npy")).float() / 255
mean, std = (torch.tensor(data[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
with torch.no_grad():
    print(json.dumps([data["input_size"], network((images - mean) / std).tolist()]))
""",
        tmp_path,
    )
    size, logits = json.loads(shown.splitlines()[-1])
    assert size == [3, 32, 32]
    assert np.array(logits) == pytest.approx(
        expected, rel=1e-4, abs=1e-4 * float(np.abs(expected).max())
    )


@pytest.mark.parametrize("name", ["torchvision:resnet18", "torchvision:mobilenet_v3_small"])
def test_torchvision_alone_loads_its_keys(name: str, tmp_path: Path) -> None:
    needs("torchvision")
    order = order_of(name, {}, tmp_path)
    expected = written(order)
    np.save(tmp_path / "images.npy", order.calibration.numpy())
    shown = run_alone(
        """
import json, numpy, torch, torchvision
from safetensors.torch import load_file
about = json.load(open("torchvision/config.json"))
network = torchvision.models.get_model(about["architecture"], **about["args"]).eval()
network.load_state_dict(load_file("torchvision/model.safetensors"))
picture = json.load(open("torchvision/preprocessor_config.json"))
images = torch.from_numpy(numpy.load("images.npy")).float() / 255
mean, std = (torch.tensor(picture[key]).view(1, 3, 1, 1) for key in ("image_mean", "image_std"))
with torch.no_grad():
    print(json.dumps(network((images - mean) / std).tolist()))
""",
        tmp_path,
    )
    logits = np.array(json.loads(shown.splitlines()[-1]))
    assert logits == pytest.approx(expected, rel=1e-4, abs=1e-4 * float(np.abs(expected).max()))


def test_a_student_of_ours_alone_is_a_module_of_the_hub(tmp_path: Path) -> None:
    order = order_of("resnet8", {}, tmp_path)
    with pytest.raises(UsageError, match="no network of transformers, timm or torchvision"):
        write_native(order)
    write_safetensors(order)
    expected = arrays(order.module)(order.calibration)
    student = egapipe.Student.from_pretrained(tmp_path)
    assert student.spec.class_names == NAMES
    student.save_pretrained(tmp_path / "again")
    for one in (student, egapipe.Student.from_pretrained(str(tmp_path / "again"))):
        for found, true in zip(arrays(one)(order.calibration), expected, strict=True):
            assert found == pytest.approx(true, abs=1e-5)
    weights = load_file(tmp_path / "again" / "model.safetensors")
    assert weights.keys() == load_file(tmp_path / "model.safetensors").keys()


def test_a_folder_of_the_hub_names_no_code(tmp_path: Path) -> None:
    order = order_of("resnet8", {}, tmp_path)
    write_safetensors(order)
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    config["student"]["name"] = "os:system"
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(UsageError, match="trust_remote_code=True"):
        egapipe.Student.from_pretrained(tmp_path)


def test_students_who_see_the_middle_square_say_so(tmp_path: Path) -> None:
    order = order_of("resnet18", {}, tmp_path, aspect="keep")
    write_native(order)
    said = json.loads((tmp_path / "transformers" / "preprocessor_config.json").read_text("utf-8"))
    assert (said["do_center_crop"], said["size"]) == (True, {"shortest_edge": 32})
    assert said["crop_size"] == {"height": 32, "width": 32}


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("transformers:vitt", {}, "did you mean vit"),
        ("transformers:vit", {"hidden": 3}, "no argument 'hidden', did you mean hidden_"),
        ("transformers:vit", {"attn_implementation": "somebody/kernels"}, "no argument"),
        ("transformers:siglip", {"vision_config": {"hidden_size": 8}}, "no section"),
        ("transformers:timm_wrapper", {}, "has no 'timm_wrapper'"),
    ],
)
def test_a_network_of_transformers_takes_plain_settings_alone(
    name: str, args: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        build_student(name, args, trusted=False)


def test_what_cannot_be_native_is_left_out_unless_it_was_asked_for(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No library at hand refuses a student of ours: here digits_cnn passes for a resnet18."""
    from egapipe.stages import export
    from egapipe.stages.export import exporting, native

    def refuse(order: Order, folder: str) -> torch.nn.Module:
        raise UsageError(f"{order.spec.student.name} is none of ours")

    known = {"digits_cnn": native.Native("transformers", refuse)}
    monkeypatch.setattr(native, "_REGISTERED", known)
    monkeypatch.setattr(exporting, "FORMATS", ("safetensors",))
    report = export.run(finished, to=tmp_path / "out")
    assert report.left_out == "digits_cnn is none of ours"
    assert [file.format for file in report.files] == ["safetensors"]
    assert not (tmp_path / "out" / "transformers").exists()
    with pytest.raises(UsageError, match="none of ours"):
        export.run(finished, to=tmp_path / "out", formats=["native"])
