"""An exported student gives the same outputs in every format, and says what it is."""

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import ExifTags, Image, ImageOps

from egapipe.pipeline.config import load_config
from egapipe.pipeline.config.data import DigitsSource
from egapipe.pipeline.datasets import open_dataset
from egapipe.pipeline.errors import EgapipeError, UsageError
from egapipe.pipeline.results.runs import RunFolder
from egapipe.stages import distill, evaluate, export, predict
from egapipe.stages.export.card import _weight
from egapipe.stages.export.module import OUTPUTS, Inference
from egapipe.stages.export.onnx_files import open_onnx
from tests.command import egapipe
from tests.stages.evaluate.conftest import CopyRun


@pytest.fixture(scope="module")
def report(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> "export.ExportReport":
    to = tmp_path_factory.mktemp("export") / "out"
    return export.run(finished, to=to, licence="apache-2.0")


def images(count: int) -> torch.Tensor:
    """uint8 [count, 3, 8, 8]: real digits of the data set behind the run."""
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
    result = card["model-index"][0]["results"][0]
    assert result["metrics"][0]["value"] == round(summary["top1"], 2)
    assert result["dataset"]["split"] == "test"
    assert "| top-1, % | " + f"{summary['top1']:.2f} |" in body
    assert f"| {summary['teacher_top1']:.2f} |" in body
    assert summary["store"]["manifest_hash"] in body
    assert "| lambda_EGA | 1 |" in body
    assert "| `model.onnx` |" in body


@pytest.mark.parametrize("which", ["last", "best", "ema"])
def test_the_card_has_the_numbers_of_the_very_weights_it_lies_beside(
    better_before: Path, tmp_path: Path, which: Any
) -> None:
    to = tmp_path / "out"
    found = export.run(better_before, to=to, checkpoint=which, formats=["safetensors"])
    body = (to / "README.md").read_text("utf-8")
    digits = open_dataset(DigitsSource(kind="digits", split="test"))
    rows = list(predict.run(to, [write_test_digits(tmp_path / "digits")], top=1))
    right = [int(row.classes[0][0]) == digits.labels[i] for i, row in enumerate(rows)]
    top1 = 100 * sum(right) / len(right)
    assert f"| top-1, % | {top1:.2f} |" in body
    assert "on 360 labelled images of the test split" in body
    name = distill.load_student(better_before, which).checkpoint.name
    assert f"`{name}`" in body
    assert ("chosen on the test images" in body) == (which == "best")
    # The teacher's head was measured at the end, and is not that of an earlier checkpoint.
    assert ("teacher's head" in body) == (which != "best")
    record = json.loads((to / "export.json").read_text("utf-8"))
    assert record["accuracy"]["top1"] == pytest.approx(top1)
    assert (record["which"], record["accuracy"]["checkpoint"]) == (which, name)
    assert not isinstance(found.accuracy, str)
    assert found.accuracy.images == 360


def write_test_digits(folder: Path) -> Path:
    folder.mkdir()
    digits = open_dataset(DigitsSource(kind="digits", split="test"))
    for row in range(len(digits)):
        digits.image(row).save(folder / f"{row:03}.png")
    return folder


def test_what_evaluate_measured_of_the_same_weights_is_taken(
    copy_run: CopyRun, tmp_path: Path
) -> None:
    run = copy_run()
    evaluate.run(run, probe_images=0)
    folder = RunFolder(run)
    summary = folder.summary()
    summary["evaluation"]["last"]["predictions"]["top1"] = 12.34
    folder.write_json("summary.json", summary)
    to = tmp_path / "out"
    export.run(run, to=to, formats=["safetensors"])
    assert "| top-1, % | 12.34 |" in (to / "README.md").read_text("utf-8")
    # Of the average of the same checkpoint it says nothing.
    export.run(run, to=to, checkpoint="ema", formats=["safetensors"])
    assert "12.34" not in (to / "README.md").read_text("utf-8")


def test_without_the_test_images_training_s_record_of_those_weights_is_shown_as_such(
    copy_run: CopyRun, photos: Path, tmp_path: Path
) -> None:
    run = copy_run(dataset__test={"kind": "folder", "path": str(tmp_path / "gone")})
    summary = RunFolder(run).summary()
    to = tmp_path / "out"
    export.run(run, to=to, checkpoint="ema", formats=["safetensors"], images=photos)
    body = (to / "README.md").read_text("utf-8")
    assert f"| top-1, % | {summary['ema_top1']:.2f} |" in body
    assert "as training recorded it, for it cannot be measured now" in body
    (run / "summary.json").unlink()
    found = export.run(run, to=to, formats=["safetensors"], images=photos)
    assert isinstance(found.accuracy, str)
    body = (to / "README.md").read_text("utf-8")
    assert "The accuracy is not known" in body
    assert "model-index" not in body


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with a picture."""
    (tmp_path / "photos").mkdir()
    Image.fromarray(images(1)[0].permute(1, 2, 0).numpy()).save(tmp_path / "photos" / "0.png")
    return tmp_path / "photos"


def test_the_python_of_the_card_runs(report: "export.ExportReport", tmp_path: Path) -> None:
    text = (report.folder / "README.md").read_text("utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    shutil.copy(report.folder / "model.onnx", tmp_path)
    Image.fromarray(images(1)[0].permute(1, 2, 0).numpy()).save(tmp_path / "photo.png")
    code = code.replace('"model.onnx"', repr(str(tmp_path / "model.onnx")))
    names: dict[str, object] = {}
    exec(code.replace('"photo.jpg"', repr(str(tmp_path / "photo.png"))), names)  # noqa: S102
    run, _ = open_onnx(report.folder / "model.onnx")
    assert names["logits"] == pytest.approx(run(images(1))[0], rel=1e-6)


def photographs(folder: Path) -> list[Path]:
    """A real digit as cameras and drawing programs leave it: lying on its side, see-through, in
    16-bit grey, with a palette that has a clear colour."""
    digit = Image.fromarray(images(3)[2].permute(1, 2, 0).numpy()).resize((40, 24))
    digit = ImageOps.colorize(digit.convert("L"), "navy", "orange")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    clear = digit.convert("RGBA")
    clear.putalpha(digit.convert("L"))
    grey = Image.fromarray(np.asarray(digit.convert("L")).astype(np.uint16) * 257)
    files = {
        "turned.jpg": (digit, {"exif": exif, "quality": 95}),
        "clear.png": (clear, {}),
        "grey.png": (grey, {}),
        "palette.png": (digit.convert("P"), {"transparency": 0}),
        "colour.png": (digit, {}),
    }
    for name, (image, options) in files.items():
        image.save(folder / name, **options)
    return [folder / name for name in files]


def test_the_python_of_the_card_sees_photographs_as_predict_does(
    report: "export.ExportReport", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (report.folder / "README.md").read_text("utf-8").split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(report.folder)
    paths = photographs(tmp_path)
    found = predict.run(report.folder / "model.onnx", paths)
    answers = []
    for path, prediction in zip(paths, found, strict=True):
        names: dict[str, Any] = {}
        exec(code.replace('"photo.jpg"', repr(str(path))), names)  # noqa: S102
        assert prediction.error == ""
        assert names["nodes"][0] == pytest.approx(prediction.nodes, abs=1e-5), path.name
        answers.append(names["nodes"][0])
    # Each is another picture: to leave out a step would be seen.
    for one, other in itertools.combinations(answers, 2):
        assert not np.allclose(one, other, atol=1e-3)


def test_the_preprocessing_is_said_in_the_file(report: "export.ExportReport") -> None:
    import onnxruntime  # type: ignore[import-untyped]

    session = onnxruntime.InferenceSession(str(report.folder / "model.onnx"))
    said = json.loads(session.get_modelmeta().custom_metadata_map["preprocessing"])
    assert said == json.loads((report.folder / "preprocessor.json").read_text("utf-8"))
    assert said["resize"] == {"height": 8, "width": 8, "resample": "bilinear", "crop": None}


def test_another_export_replaces_the_first_and_nothing_else(finished: Path, tmp_path: Path) -> None:
    to = tmp_path / "out"
    export.run(finished, to=to, formats=["safetensors", "torch"])
    export.run(finished, to=to, formats=["safetensors"])
    assert sorted(path.name for path in to.iterdir()) == [
        "README.md",
        "config.json",
        "export.json",
        "model.safetensors",
        "preprocessor.json",
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
    with pytest.raises(
        UsageError, match="choose from safetensors, torch, onnx, onnx-fp16, onnx-int8, native"
    ):
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


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("ega: 0.25", "0.25"),
        ("ega: auto", "auto"),
        ("ega: {weight: auto, ratio: 0.5}", "auto, ratio 0.5"),
    ],
)
def test_a_weight_is_said_in_words(options: str, words: str) -> None:
    config = load_config("quickstart", [f"distill.objective={{{options}}}"])
    assert _weight(config.distill.objective.model_dump(mode="json")["ega"]) == words
