"""`egapipe extract`: what a user sees, and how a mistake ends."""

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from egapipe.pipeline import cli
from egapipe.pipeline.store import check_store
from tests.stages.extract import models
from tests.stages.extract.conftest import Sets, as_options


def command(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of `egapipe extract`, run in this process."""
    monkeypatch.setattr(sys, "argv", ["egapipe", "extract", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_both_splits_are_extracted_and_reported_by_the_line(
    sets: Sets,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ["--local", *as_options(sets())]
    assert command(*options, monkeypatch=monkeypatch) == 0
    out, err = capsys.readouterr()
    train, test = out.splitlines()
    assert train.startswith(f"train: 70 rows x 3 views in {tmp_path}/store/train.zarr, ")
    assert test.startswith(f"test: 20 rows x 1 views in {tmp_path}/store/test.zarr, ")
    assert "rows/s; " in train
    said = [line for line in err.splitlines() if not line.startswith("{")]
    assert said == [
        "digits/train: 1,437 of 1,437 rows have one of 10 classes",
        "digits/train: 70 of 1,437 rows (as many of each class as can be, drawn by seed 0;"
        " `choose: first` takes the first rows)",
        "digits/test: 360 of 360 rows have one of 10 classes",
        "digits/test: 20 of 360 rows (as many of each class as can be, drawn by seed 0;"
        " `choose: first` takes the first rows)",
    ]
    last = json.loads(next(line for line in err.splitlines() if line.startswith("{")))
    assert (last["task"], last["done"], last["total"]) == ("extract train", 70, 70)
    assert {"decode_share", "infer_share", "write_share", "per_second"} <= last.keys()
    assert check_store(f"{tmp_path}/store/train.zarr").ok
    # Nothing is left, so no Ray is started for it either.
    assert command(*as_options(sets()), monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out.count("complete already") == 2


MISTAKES = {
    "no folder": (["teacher.model=./none"], 1, "teacher ./none: no such folder"),
    "no pooling": (["teacher.pooling=projection"], 1, "have no projection output"),
    "no images": (["dataset.train={kind: folder, path: none}"], 2, "is not a folder"),
    "no key": (["extract.batchsize=3"], 2, "batch_size"),
    "no number": (["extract.batch_size=0"], 2, "extract.batch_size"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_ends_in_one_line_and_writes_nothing(
    name: str,
    sets: Sets,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked, code, message = MISTAKES[name]
    assert command("--local", *as_options(sets(*asked)), monkeypatch=monkeypatch) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
    assert not list((tmp_path / "store").rglob("commits/0*.json"))


@pytest.mark.slow
def test_too_many_unreadable_images_end_in_one_line(
    sets: Sets,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "images").mkdir()
    for row in range(12):
        Image.new("RGB", (8, 8), (20 * row, 0, 0)).save(tmp_path / "images" / f"{row:02}.png")
    (tmp_path / "images/05.png").write_bytes(b"GIF89a")
    source = f"dataset.train={{kind: folder, path: {tmp_path / 'images'}}}"
    options = ["--local", "--split", "train", *as_options(sets(source))]
    assert command(*options, monkeypatch=monkeypatch) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: 1 of 12 rows failed, extract.max_failures allows 0.01: 05.png: ")
    allowed = [*options, "--set", "extract.max_failures=1"]
    assert command(*allowed, monkeypatch=monkeypatch) == 0
    assert "1 failed" in capsys.readouterr().out
    # What is wrong with the image itself fails again.
    assert command(*allowed, "--retry-failures", monkeypatch=monkeypatch) == 0
    first, last = capsys.readouterr().out.splitlines()
    assert first == "train: shards with failures are done again: 1"
    assert "1 failed, " in last
    assert command(*allowed, "--retry-failures", "--dry-run", monkeypatch=monkeypatch) == 2


def test_another_teacher_at_the_same_url_ends_in_one_line(
    sets: Sets,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ["--local", "--split", "test"]
    assert command(*options, *as_options(sets()), monkeypatch=monkeypatch) == 0
    other = f"teacher.model={models.dinov2(tmp_path / 'other')}"
    assert command(*options, *as_options(sets(other)), monkeypatch=monkeypatch) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"error: store {tmp_path}/store/test.zarr is another one: ")
    assert "teacher.class is 'ViTModel', the config asks for 'Dinov2Model'" in last
    assert last.endswith("or point store.url elsewhere")
