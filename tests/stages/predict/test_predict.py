"""Predictions are those of training, from every form of a student, and bad files stop nothing."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from egapipe.pipeline.config.data import DigitsSource
from egapipe.pipeline.datasets import open_dataset
from egapipe.pipeline.errors import UsageError
from egapipe.stages import distill, export, predict
from tests.command import egapipe

DIGITS = 24


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PNG files of real test digits, named by row."""
    folder = tmp_path_factory.mktemp("photos")
    digits = open_dataset(DigitsSource(kind="digits", split="test"))
    for row in range(DIGITS):
        digits.image(row).save(folder / f"{row:03}.png")
    return folder


@pytest.fixture(scope="module")
def exported(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("exported") / "student"
    return export.run(finished, to=to).folder


def test_run_export_and_onnx_say_the_same_as_training(
    finished: Path, exported: Path, photos: Path
) -> None:
    student = distill.load_student(finished, device="cpu")
    digits = open_dataset(DigitsSource(kind="digits", split="test"))
    [expected] = student.outputs(digits, np.arange(DIGITS))
    probabilities = expected.logits.softmax(dim=1).numpy()
    for model in (finished, exported, exported / "model.onnx"):
        found = list(predict.run(model, [photos], top=10))
        assert [p.path.name for p in found] == [f"{row:03}.png" for row in range(DIGITS)]
        for row, prediction in enumerate(found):
            assert dict(prediction.classes) == pytest.approx(
                {str(c): float(p) for c, p in enumerate(probabilities[row])}, abs=1e-4
            )
            assert prediction.nodes == pytest.approx(expected.nodes[row].numpy(), abs=1e-3)
            assert prediction.features == pytest.approx(expected.features[row].numpy(), abs=1e-3)
            ordered = [p for _, p in prediction.classes]
            assert ordered == sorted(ordered, reverse=True)


@pytest.mark.parametrize("checkpoint", ["best", "ema"])
def test_a_run_predicts_with_each_of_its_weights(
    better_before: Path, photos: Path, checkpoint: str
) -> None:
    run = better_before
    done = egapipe("predict", str(run), str(photos), "--checkpoint", checkpoint, "--json")
    assert done.returncode == 0, done.stderr
    student = distill.load_student(run, checkpoint, "cpu")
    digits = open_dataset(DigitsSource(kind="digits", split="test"))
    [expected] = student.outputs(digits, np.arange(DIGITS))
    found = [json.loads(line) for line in done.stdout.splitlines()]
    nodes = np.array([line["nodes"] for line in found])
    assert nodes == pytest.approx(expected.nodes.numpy(), abs=1e-3)
    [last] = distill.load_student(run, device="cpu").outputs(digits, np.arange(DIGITS))
    assert not np.allclose(last.nodes.numpy(), expected.nodes.numpy(), atol=1e-2)


def test_an_export_has_no_other_checkpoint(exported: Path, photos: Path) -> None:
    for model in (exported, exported / "model.onnx"):
        with pytest.raises(UsageError, match="no checkpoint to choose"):
            predict.run(model, [photos], checkpoint="best")


def test_images_of_another_size_are_resized(exported: Path, photos: Path, tmp_path: Path) -> None:
    Image.open(photos / "000.png").resize((300, 200)).save(tmp_path / "large.jpg")
    [prediction] = predict.run(exported, [tmp_path / "large.jpg"], top=2)
    assert len(prediction.classes) == 2
    assert prediction.error == ""


def test_a_bad_file_is_a_line_and_not_the_end(exported: Path, photos: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"not an image")
    rows = list(predict.run(exported, [photos / "000.png", bad, photos / "001.png"]))
    assert [bool(row.error) for row in rows] == [False, True, False]
    assert rows[1].classes == []
    alone = {row.path: row.classes for row in predict.run(exported, [photos])}
    assert rows[2].classes[0][0] == alone[photos / "001.png"][0][0]


def test_the_command_writes_every_format(exported: Path, photos: Path, tmp_path: Path) -> None:
    names = {suffix: tmp_path / f"out{suffix}" for suffix in (".parquet", ".jsonl", ".csv")}
    for file in names.values():
        done = egapipe("predict", str(exported / "model.onnx"), str(photos), "--output", str(file))
        assert done.returncode == 0, done.stderr
        # A summary, and not every image.
        assert done.stdout.splitlines()[-1].startswith(f"{DIGITS} images of ")
        assert str(photos) not in done.stdout
    table = pq.read_table(names[".parquet"]).to_pylist()
    lines = [json.loads(line) for line in names[".jsonl"].read_text("utf-8").splitlines()]
    with names[".csv"].open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [r["label"] for r in table] == [r["label"] for r in lines] == [r["label"] for r in rows]
    assert table[0]["nodes"] == pytest.approx(lines[0]["nodes"])
    assert len(table[0]["nodes"]) == 64


def test_the_command_ends_with_1_after_a_bad_file(
    exported: Path, photos: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"")
    done = egapipe("predict", str(exported), str(bad), str(photos / "000.png"), "--json")
    assert done.returncode == 1
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert first["error"] == "the file is empty"
    assert second["label"] is not None


def test_bad_arguments_are_one_line(exported: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no student"):
        predict.run(photos, [photos])
    with pytest.raises(UsageError, match="neither an image file nor a folder"):
        predict.run(exported, [tmp_path / "missing.png"])
    done = egapipe("predict", str(exported), str(photos), "--output", str(tmp_path / "out.txt"))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert list(tmp_path.iterdir()) == []


def test_many_images_are_summed_up_unless_each_is_asked_for(
    exported: Path, photos: Path, tmp_path: Path
) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for number in range(21):
        (many / f"{number:02}.png").write_bytes((photos / "000.png").read_bytes())
    (many / "bad.png").write_bytes(b"")
    done = egapipe("predict", str(exported), str(many))
    assert done.returncode == 1
    *rest, bad, counted = done.stdout.splitlines()
    assert rest[0].split() == ["class", "images", "probability"]
    assert rest[1].split()[1] == "21"
    assert bad.endswith("bad.png: error: the file is empty")
    assert counted == "21 images of 1 class, 1 could not be read"
    assert "images/s" in done.stderr or '"unit": "images"' in done.stderr
    each = egapipe("predict", str(exported), str(many), "--each")
    assert len(each.stdout.splitlines()) == 22
