"""Images that train and test share are found."""

import csv
from pathlib import Path

import pytest
from PIL import Image, ImageFilter

from egapipe.pipeline.config import Config, load_config
from egapipe.pipeline.config.data import DigitsSource
from egapipe.pipeline.datasets import open_dataset
from egapipe.pipeline.errors import UsageError
from egapipe.stages import extract, index
from egapipe.stages.index.command import leak_lines, write_leaks


@pytest.fixture(scope="module")
def leaking(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """40 training digits, 10 others to test on, and in the test folder two of the former: one as
    it is with another label, one a little blurred."""
    folder = tmp_path_factory.mktemp("leaking")
    digits = open_dataset(DigitsSource(kind="digits", split="all"))

    def save(split: str, row: int, label: int, image: Image.Image) -> None:
        place = folder / split / str(label)
        place.mkdir(parents=True, exist_ok=True)
        image.save(place / f"{row:04}.png")

    for label in range(10):
        for split in ("train", "test"):
            (folder / split / str(label)).mkdir(parents=True)
    for row in range(50):
        split = "train" if row < 40 else "test"
        save(split, row, int(digits.labels[row]), digits.image(row))
    save("test", 3, (int(digits.labels[3]) + 1) % 10, digits.image(3))
    # A corner of a blank pixel changes, and nothing that makes the digit.
    nearly = digits.image(7).filter(ImageFilter.GaussianBlur(0.2))
    save("test", 7, int(digits.labels[7]), nearly)
    config = load_config(
        "quickstart",
        [
            f"dataset.train={{kind: folder, path: {folder / 'train'}}}",
            f"dataset.test={{kind: folder, path: {folder / 'test'}}}",
            f"store.url={folder / 'stores'}",
            f"store.cache_dir={folder / 'cache'}",
            "views.count=0",
        ],
    )
    for split in config.splits():
        extract.run(config, split=split, local=True)
    return config


def test_the_copies_are_the_most_alike(leaking: Config, tmp_path: Path) -> None:
    report = index.find_leaks(leaking, threshold=0.5)
    assert (report.test_images, report.train_images) == (12, 40)
    exact, blurred = report.leaks[:2]
    assert Path(exact.test_key).name == Path(exact.train_key).name == "0003.png"
    assert exact.cosine == pytest.approx(1.0, abs=1e-4)
    assert (exact.identical, exact.same_label) == (True, False)
    assert Path(blurred.test_key).name == Path(blurred.train_key).name == "0007.png"
    assert blurred.same_label
    assert [leak.cosine for leak in report.leaks] == sorted(
        (leak.cosine for leak in report.leaks), reverse=True
    )
    lines = leak_lines(report)
    assert "(same pixels, another label)" in lines[3]
    write_leaks(tmp_path / "leaks.csv", report.leaks)
    with (tmp_path / "leaks.csv").open(encoding="utf-8") as stream:
        assert [row["test_key"] for row in csv.DictReader(stream)] == [
            leak.test_key for leak in report.leaks
        ]


def test_the_threshold_decides_what_is_listed_and_not_what_is_counted(leaking: Config) -> None:
    few, many = (index.find_leaks(leaking, threshold=t) for t in (0.9999, 0.1))
    assert few.levels == many.levels
    assert len(few.leaks) < len(many.leaks) == 12
    with pytest.raises(UsageError, match="cosine above 0"):
        index.find_leaks(leaking, threshold=1.5)
