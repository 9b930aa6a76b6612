"""What the README tells a user to type works, on a folder of images that are not square."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from egapipe.pipeline.config.data import DigitsSource
from egapipe.pipeline.datasets import open_dataset

README = (Path(__file__).resolve().parents[1] / "README.md").read_text("utf-8")
SHIPPED = "package:egapipe.configs.teachers.digits"


def blocks(heading: str) -> list[tuple[str, str]]:
    """(language, text) of every fenced block below a heading."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"```(\w+)\n(.*?)```", section, flags=re.DOTALL)


def write_photos(folder: Path) -> None:
    """Digits 3 and 8 as JPEGs of many sizes, a class a sub-folder."""
    digits = open_dataset(DigitsSource(kind="digits", split="all"))
    rng = np.random.default_rng(0)
    for label in (3, 8):
        rows = np.flatnonzero(digits.labels == label)[:30]
        for place, row in enumerate(rows):
            split = "train" if place < 20 else "test"
            target = folder / split / str(label) / f"{row}.jpg"
            target.parent.mkdir(parents=True, exist_ok=True)
            width, height = rng.integers(40, 120, 2)
            digits.image(int(row)).resize((int(width), int(height)), Image.Resampling.BICUBIC).save(
                target, quality=90
            )


@pytest.fixture(scope="module")
def after_the_commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the section's commands have run. The hub's model is the shipped one."""
    folder = tmp_path_factory.mktemp("mine")
    write_photos(folder / "photos")
    texts = blocks("Your own images")
    config = next(text for language, text in texts if language == "yaml")
    small = config.replace("facebook/dinov2-small", SHIPPED).replace("epochs: 100", "epochs: 1")
    assert SHIPPED in small
    assert "epochs: 1 " in small.replace("\n", " ")
    (folder / "mine.yaml").write_text(small)
    commands = next(text for language, text in texts if language == "sh")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    run = subprocess.run(
        ["bash", "-e", "-c", commands],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return folder


def test_the_commands_leave_two_runs_and_whole_stores(after_the_commands: Path) -> None:
    runs = sorted((after_the_commands / "runs" / "mine").glob("*/summary.json"))
    assert len(runs) == 2
    assert (after_the_commands / "stores" / "mine" / "train.zarr" / "failures.parquet").is_file()


def test_the_python_examples_run(
    after_the_commands: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    monkeypatch.chdir(after_the_commands)
    run = next((after_the_commands / "runs" / "mine").glob("resnet8x4-*-seed0-*"))
    examples = [text for language, text in blocks("Your own images") if language == "python"]
    for text in examples:
        names = {"student": torch.randn(8, 16), "teacher": torch.randn(8, 16)}
        exec(text.replace("resnet8x4-ega-seed0-1a2b3c4d", run.name), names)  # noqa: S102
    assert "Accuracy(top1=" in capsys.readouterr().out
    assert torch.isfinite(names["loss"])
