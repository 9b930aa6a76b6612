"""An image that cannot be read is left out of training and evaluation, however images are held."""

from pathlib import Path

import numpy as np
import pytest

from egapipe.pipeline.config import Config, load_config
from egapipe.pipeline.config.data import DigitsSource
from egapipe.pipeline.datasets import open_dataset
from egapipe.stages import distill, extract

TRAIN, TEST = 40, 30


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Digits as PNG files; two training images and one test image are cut short."""
    digits = open_dataset(DigitsSource(kind="digits", split="all"))
    for row in range(TRAIN + TEST):
        split = "train" if row < TRAIN else "test"
        file = tmp_path / split / str(digits.labels[row]) / f"{row:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        digits.image(row).save(file)
    for split, count in (("train", 2), ("test", 1)):
        for file in sorted((tmp_path / split).rglob("*.png"))[:count]:
            file.write_bytes(file.read_bytes()[:60])
    sets = [
        f"dataset.train={{kind: folder, path: '{tmp_path / 'train'}'}}",
        f"dataset.test={{kind: folder, path: '{tmp_path / 'test'}'}}",
        f"store.url={tmp_path / 'stores'}",
        f"runs={tmp_path / 'runs'}",
        "extract.max_failures=2",
        "views.count=1",
        "distill.epochs=2",
        "distill.batch_size=16",
        "distill.labels_per_class=null",
    ]
    return load_config("quickstart", sets)


def test_resident_and_streamed_images_leave_out_the_same(config: Config, tmp_path: Path) -> None:
    for split in config.splits():
        extract.run(config, split=split, local=True)
    summaries = []
    for data in ("resident", "stream"):
        section = config.distill.model_copy(update={"data": data})
        runs = str(tmp_path / data)
        done = distill.run(config.model_copy(update={"distill": section, "runs": runs}))
        assert done.summary["train_rows"] == TRAIN - 2
        assert distill.load_student(done.run).accuracy().images == TEST - 1
        summaries.append((done.summary["top1"], done.summary["top5"]))
    assert summaries[0] == summaries[1]
    hits = summaries[0][0] / 100 * (TEST - 1)
    assert np.isclose(hits, round(hits))
