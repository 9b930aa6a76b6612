"""Digits as image files, some of them damaged."""

from collections.abc import Collection
from pathlib import Path

from PIL import Image

from egapipe.pipeline.config.data import DigitsSource
from egapipe.pipeline.datasets import open_dataset


def write_digits(
    folder: Path, rows: range, *, classes: Collection[int], broken: Collection[int] = ()
) -> str:
    """A sub-folder a class. `broken`: of the files in order of their names, those to damage."""
    digits = open_dataset(DigitsSource(kind="digits", split="all"))
    for row in rows:
        label = int(digits.labels[row])
        if label in classes:
            (folder / str(label)).mkdir(parents=True, exist_ok=True)
            digits.image(row).resize((16, 16), Image.Resampling.NEAREST).save(
                folder / str(label) / f"{row:04}.png"
            )
    files = sorted(folder.rglob("*.png"))
    for number in broken:
        files[number].write_bytes(b"no image")
    return str(folder)
