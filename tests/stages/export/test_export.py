"""An exported student gives the same outputs in every format, and says what it is."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from egapipe.pipeline.errors import EgapipeError, UsageError
from egapipe.pipeline.runs import RunFolder
from egapipe.stages import distill, export
from egapipe.stages.export.module import OUTPUTS, Inference
from egapipe.stages.export.programs import open_onnx
from tests.command import egapipe


@pytest.fixture(scope="module")
def report(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> "export.ExportReport":
    to = tmp_path_factory.mktemp("export") / "out"
    return export.run(finished, to=to, licence="apache-2.0")


def images(count: int) -> torch.Tensor:
    """uint8 [count, 3, 8, 8]: real digits of the data set behind the run."""
    from egapipe.pipeline.config.data import DigitsSource
    from egapipe.pipeline.datasets import open_dataset

    digits = open_dataset(DigitsSource(kind="digits", split="test"))
    pixels = np.stack([np.asarray(digits.image(row)) for row in range(count)])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def test_every_format_was_checked_on_real_images_and_timed(report: "export.ExportReport") -> None:
    assert [file.format for file in report.files] == ["safetensors", "torch", "onnx"]
    assert report.images == 64
    for file in report.files:
        assert file.error <= 1e-4
        assert file.bytes == (report.folder / file.file).stat().st_size
        assert file.milliseconds.keys() == {1, 64}
    record = json.loads((report.folder / "export.json").read_text("utf-8"))
    assert [file["file"] for file in record["files"]] == [file.file for file in report.files]


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_onnx_takes_any_batch_and_gives_what_the_student_gives(
    finished: Path, report: "export.ExportReport", batch: int
) -> None:
    student = distill.load_student(finished, device="cpu").student
    with torch.no_grad():
        expected = Inference(student)(images(batch))
    run, spec = open_onnx(report.folder / "model.onnx")
    assert spec.size == (8, 8)
    for name, found, true in zip(OUTPUTS, run(images(batch)), expected, strict=True):
        assert found == pytest.approx(true.numpy(), rel=1e-4, abs=1e-4), name


def test_the_weights_load_without_the_run(report: "export.ExportReport", finished: Path) -> None:
    student, spec = export.load_exported(report.folder)
    original = distill.load_student(finished, device="cpu")
    assert spec == original.spec
    for name, value in original.student.state_dict().items():
        assert torch.equal(value, student.state_dict()[name])


def test_the_card_says_where_the_student_comes_from(
    report: "export.ExportReport", finished: Path
) -> None:
    text = (report.folder / "README.md").read_text("utf-8")
    _, front, body = text.split("---\n", 2)
    card = yaml.safe_load(front)
    summary = RunFolder(finished).summary()
    assert card["license"] == "apache-2.0"
    metrics = card["model-index"][0]["results"][0]["metrics"]
    assert metrics[0]["value"] == round(summary["top1"], 2)
    assert summary["store"]["manifest_hash"] in body
    assert "| lambda_EGA | 1 |" in body
    assert "| `model.onnx` |" in body


def test_the_python_of_the_card_runs(report: "export.ExportReport", tmp_path: Path) -> None:
    from PIL import Image

    text = (report.folder / "README.md").read_text("utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    shutil.copy(report.folder / "model.onnx", tmp_path)
    Image.fromarray(images(1)[0].permute(1, 2, 0).numpy()).save(tmp_path / "photo.png")
    code = code.replace('"model.onnx"', repr(str(tmp_path / "model.onnx")))
    names: dict[str, object] = {}
    exec(code.replace('"photo.jpg"', repr(str(tmp_path / "photo.png"))), names)  # noqa: S102
    run, _ = open_onnx(report.folder / "model.onnx")
    assert names["logits"] == pytest.approx(run(images(1))[0], rel=1e-6)


def test_another_export_replaces_the_first_and_nothing_else(finished: Path, tmp_path: Path) -> None:
    to = tmp_path / "out"
    export.run(finished, to=to, formats=["safetensors", "torch"])
    export.run(finished, to=to, formats=["safetensors"])
    assert sorted(path.name for path in to.iterdir()) == [
        "README.md",
        "config.json",
        "export.json",
        "model.safetensors",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_is_somebodys_keeps_what_is_in_it(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("ref: refs/heads/main")
    (tmp_path / "thesis.tex").write_text("mine")
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        export.run(finished, to=".", formats=["safetensors"])
    (tmp_path / "export.json").unlink()
    (tmp_path / "README.md").write_text("mine too")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(UsageError, match=r"is there, and egapipe did not write it"):
        export.run(finished, to=".", formats=["safetensors"])
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert (tmp_path / "thesis.tex").read_text() == "mine"


def test_a_student_that_cannot_be_traced_says_so_and_leaves_nothing(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "branching.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.linear = torch.nn.Linear(192, 64)\n"
        "    def forward(self, x):\n"
        "        x = self.linear(x.flatten(1))\n"
        "        return x if x.sum() > 0 else -x\n",
        "utf-8",
    )
    monkeypatch.chdir(tmp_path)
    config = RunFolder(finished).config().model_dump(mode="json")
    from egapipe.pipeline.config.load import check, override

    changes = {
        "distill.student.name": "branching:Net",
        "distill.epochs": 1,
        "runs": str(tmp_path / "runs"),
    }
    run = distill.run(check(override(config, changes), "branching")).run
    with pytest.raises(UsageError, match="code that a file names"):
        export.run(run, to=tmp_path / "out")
    with pytest.raises(EgapipeError, match=r"branching:Net cannot be traced") as raised:
        export.run(run, to=tmp_path / "out", trust_remote_code=True)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()
    only = {"formats": ["safetensors"], "trust_remote_code": True}
    assert export.run(run, to=tmp_path / "out", **only).files[0].error <= 1e-4


def test_bad_input_is_one_line(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="choose from safetensors, torch, onnx"):
        export.run(finished, formats=["tflite"])
    with pytest.raises(UsageError, match="not a run folder"):
        export.run(tmp_path)
    (tmp_path / "config.json").write_text("{}", "utf-8")
    with pytest.raises(UsageError, match="not that of an exported student"):
        export.load_exported(tmp_path)
    (tmp_path / "no.onnx").write_bytes(b"no graph")
    with pytest.raises(UsageError, match="not an ONNX file that can be run"):
        open_onnx(tmp_path / "no.onnx")


def test_the_command_prints_the_files(finished: Path, tmp_path: Path) -> None:
    done = egapipe("export", str(finished), "--to", str(tmp_path / "out"), "--format", "onnx")
    assert done.returncode == 0, done.stderr
    assert "model.onnx" in done.stdout
    assert done.stdout.splitlines()[-1] == f"export: {tmp_path / 'out'}"
    assert (tmp_path / "out" / "model.onnx").is_file()
    again = egapipe("export", str(tmp_path))
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
