"""Teachers that cannot be used: one line that says why and what to do."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from egapipe.pipeline.errors import TeacherError
from egapipe.stages.extract.teachers import Outputs, Preprocessing, load_teacher, probe
from tests.stages.extract import models

Spoil = Callable[[Path], None]


def refusal(folder: Path | str, **fields: Any) -> str:
    """The one line of the error."""
    config = models.settings(Path(), **fields).model_copy(update={"model": str(folder)})
    with pytest.raises(TeacherError) as error:
        load_teacher(config)
    text = str(error.value)
    assert "\n" not in text
    assert text.startswith(f"teacher {folder}")
    return text


def remove(name: str) -> Spoil:
    return lambda folder: (folder / name).unlink()


def as_pickle(folder: Path) -> None:
    """Weights as older repositories have them: a pickle, which runs code when it is opened."""
    file = folder / "model.safetensors"
    torch.save(load_file(file), folder / "pytorch_model.bin")
    file.unlink()


def cut_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def drop_a_layer(folder: Path) -> None:
    file = folder / "model.safetensors"
    tensors = {k: v for k, v in load_file(file).items() if "layer.1." not in k}
    save_file(tensors, file, metadata={"format": "pt"})


def other_shape(folder: Path) -> None:
    edit(folder / "config.json", hidden_size=32)


def larger_images(folder: Path) -> None:
    edit(folder / "preprocessor_config.json", size={"height": 20, "width": 20})


def unknown_class(folder: Path) -> None:
    edit(folder / "config.json", model_type="not_a_model")


def remote_code(folder: Path) -> None:
    """A model whose class is code of its repository, which is never run."""
    (folder / "own.py").write_text("raise SystemExit('this code was run')\n")
    auto = {"AutoConfig": "own.Config", "AutoModel": "own.Model"}
    edit(folder / "config.json", model_type="own", auto_map=auto)


def edit(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


SPOILED: dict[str, tuple[Spoil, str]] = {
    "no config": (remove("config.json"), "no config.json; save a model there with save_pretrained"),
    "no weights": (remove("model.safetensors"), "no safetensors weights .* save_pretrained"),
    "pickled weights": (as_pickle, "no safetensors weights .* can run code"),
    "no processor": (remove("preprocessor_config.json"), "no preprocessor_config.json"),
    "cut weights": (cut_weights, "cannot be loaded: .*incomplete metadata"),
    "a layer is missing": (drop_a_layer, "lacks 16 of ViTModel's weights .*files are incomplete"),
    "another shape": (other_shape, "cannot be loaded"),
    "another input size": (larger_images, "does not take the 20 x 20 images"),
    "an unknown class": (unknown_class, "cannot be loaded: .*not_a_model"),
    "code of its own": (remote_code, "cannot be loaded"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_spoiled_folder_is_refused(name: str, tmp_path: Path) -> None:
    spoil, message = SPOILED[name]
    folder = models.vit(tmp_path)
    spoil(folder)
    assert re.search(message, refusal(folder))


def test_a_missing_folder_is_no_hub_name() -> None:
    assert "no such folder" in refusal("./no/such/teacher")
    assert "no such folder" in refusal("/no/such/teacher")
    assert "is the package installed?" in refusal("package:no_such_package.teacher")


def test_a_hub_name_without_a_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "check the name, teacher.revision and the connection" in refusal("nobody/no-such-model")


def test_a_model_of_text_is_no_teacher(tmp_path: Path) -> None:
    config = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=9
    )
    folder = models.save(transformers.BertModel(config), tmp_path, "vit")
    assert "is a BertModel: not an image encoder" in refusal(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_outputs_that_are_not_finite(value: float, tmp_path: Path) -> None:
    model = models.vit_model()
    with torch.no_grad():
        model.layernorm.weight.fill_(value)
        model.layernorm.bias.fill_(value)
    folder = models.save(model, tmp_path, "vit")
    assert "gives non-finite outputs" in refusal(folder)


def test_an_embedding_that_is_constant(tmp_path: Path) -> None:
    model = models.vit_model()
    with torch.no_grad():
        model.layernorm.weight.zero_()
    folder = models.save(model, tmp_path, "vit")
    assert "gives the same embedding for different images: check its weights" in refusal(folder)


class Dice:
    """An encoder that draws random numbers, as one with dropout at evaluation would."""

    def __init__(self) -> None:
        self.spec = {"model": "dice", "precision": "float32"}
        self.preprocessing = Preprocessing((4, 4), None, "bicubic", 1.0, (0, 0, 0), (1, 1, 1))
        self.outputs = {"embedding": (4,)}

    def to(self, device: torch.device) -> None:
        pass

    def forward(self, pixels: Tensor) -> Outputs:
        return {"embedding": torch.rand(len(pixels), 4)}


def test_outputs_that_differ_from_pass_to_pass() -> None:
    with pytest.raises(TeacherError, match="draws random numbers in its forward pass"):
        probe(Dice())
