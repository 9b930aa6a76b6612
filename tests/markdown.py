"""Fenced blocks of the project's pages, run as a reader would type them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from egapipe.pipeline.config.data import DigitsSource
from egapipe.pipeline.datasets import open_dataset
from tests.warm import SHARED, shared

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = "package:egapipe.configs.teachers.digits"


def page(name: str) -> str:
    """The text of a page of the repository."""
    return (ROOT / name).read_text("utf-8")


def blocks(text: str) -> list[tuple[str, str]]:
    """(language, text) of every fenced block."""
    return re.findall(r"```(\w+)\n(.*?)```", text, flags=re.DOTALL)


def run_shell(commands: str, folder: Path, seconds: float = 280, *, warm: bool = False) -> str:
    """Run commands in a folder until one fails; what they printed. This Python's scripts first.

    warm: `egapipe` is forked from the process that has its libraries, and not its own script.
    """
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    connections = [shared()] if warm else []
    if warm:
        environment |= {SHARED: str(connections[0]), "WARM": f"{sys.executable} -m"}
        commands = f'egapipe() {{ $WARM tests.warm_egapipe "$@"; }}\n{commands}'
    run = subprocess.run(
        ["bash", "-e", "-c", commands],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
        pass_fds=connections,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


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
            width, height = (int(side) for side in rng.integers(40, 120, 2))
            image = digits.image(int(row)).resize((width, height), Image.Resampling.BICUBIC)
            image.save(target, quality=90)
