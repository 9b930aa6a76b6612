"""Places: two ways to write one, and what lies there whatever it is called."""

import json
import shutil
from pathlib import Path

import pytest

from egapipe.pipeline.locations.places import is_place, same_place, teacher_files


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("EGAPIPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "here"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("./vit", True),
        ("/data/vit", True),
        ("~/vit", True),
        ("a/b/vit", True),
        ("local-dir:vit", True),
        ("facebook/dinov2-small", False),
        ("ViT-B-32", False),
        ("package:egapipe.configs.teachers.digits/a/b.onnx", False),
        ("hf-hub:timm/vit/x", False),
        ("my.module:build", False),
    ],
)
def test_a_path_or_a_name(text: str, place: bool) -> None:
    assert is_place(text) == place


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("models/a/vit", "{here}/models/a/vit", True),
        ("./vit", "{here}/vit", True),
        ("models/a/vit", "/other/models/a/vit", True),
        ("models/a/vit", "/other/models/b/vit", False),
        ("../models/vit", "/other/models/vit", False),
        ("/one/vit", "/two/vit", False),
        ("models/a/vit", "models/b/vit", False),
        # May be a name of the hub, and another folder is not that.
        ("facebook/dinov2-small", "/other/facebook/dinov2-small", False),
        ("local-dir:models/a/vit", "local-dir:{here}/models/a/vit", True),
        ("ViT-B-32", "ViT-L-14", False),
        (None, "/vit", False),
    ],
)
def test_one_place_in_two_ways(here: Path, a: str | None, b: str, same: bool) -> None:
    assert same_place(a, b.format(here=here)) == same
    assert same_place(b.format(here=here), a) == same


def files(backend: str, model: object, **more: object) -> str | None:
    return teacher_files({"backend": backend, "model": str(model), **more})


def a_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_a_folder_is_its_content(here: Path, tmp_path: Path) -> None:
    folder = a_folder(here / "one")
    known = files("transformers", folder)
    assert known is not None
    assert files("transformers", "one") == files("transformers", "./one") == known
    assert files("transformers", shutil.copytree(folder, tmp_path / "moved")) == known
    assert files("timm", "local-dir:one") == files("open_clip", "local-dir:one") == known
    for name in ("README.md", "tokenizer.json", "pytorch_model.bin"):
        (folder / name).write_text("not read")
    assert files("transformers", folder) == known
    (folder / "model.safetensors").write_bytes(b"others!")
    assert files("transformers", folder) not in (known, None)


def test_a_file_is_its_content_and_what_is_called_after_it(here: Path) -> None:
    (here / "vit.onnx").write_bytes(b"graph")
    known = files("onnx", "vit.onnx")
    shutil.copy(here / "vit.onnx", here / "other.onnx")
    assert files("onnx", "other.onnx") == known
    (here / "vit.onnx_data").write_bytes(b"weights")
    assert files("onnx", "vit.onnx") not in (known, None)


def test_a_run_is_the_checkpoint_that_counts(here: Path) -> None:
    checkpoints = here / "run" / "checkpoints"
    names = [f"epoch0000{epoch}-step0000000" for epoch in (1, 2)]
    for name in (*names, "../elsewhere"):
        (checkpoints / name).mkdir(parents=True)
        (checkpoints / name / "student.safetensors").write_text(name)
        (checkpoints / name / "ema.safetensors").write_text(f"mean of {name}")
    (here / "run" / "model.json").write_text("{}")
    pointer = checkpoints / "last.json"
    assert files("run", "run") is None
    found = set()
    for name in names:
        pointer.write_text(json.dumps({"folder": name}))
        found |= {files("run", "run", checkpoint=which) for which in ("last", "ema")}
    assert len(found - {None}) == 4
    # Not what another program would have us read.
    for folder in ("../elsewhere", str(checkpoints / names[0]), None, 1):
        pointer.write_text(json.dumps({"folder": folder}))
        assert files("run", "run", checkpoint="last") is None


def test_weights_of_open_clip_may_be_a_file(here: Path) -> None:
    (here / "weights.pt").write_bytes(b"weights")
    assert files("open_clip", "ViT-B-32", pretrained="weights.pt") is not None
    assert files("open_clip", "ViT-B-32", pretrained="laion2b_s34b_b79k") is None


@pytest.mark.parametrize(
    ("backend", "model"),
    [
        ("transformers", "facebook/dinov2-small"),
        ("transformers", "package:egapipe.configs.teachers.digits"),
        ("transformers", "./gone"),
        ("onnx", "gone.onnx"),
        ("timm", "vit_small"),
        ("python", "torch.nn:Linear"),
        ("imported", "m"),
    ],
)
def test_what_is_not_here_has_no_content(backend: str, model: str) -> None:
    assert files(backend, model) is None
