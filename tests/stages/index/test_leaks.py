"""Images that train and test share are found, and hardly any others."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from PIL import Image, ImageFilter, ImageOps
from typer.testing import CliRunner

from egapipe.pipeline.config import Config, load_config, override, to_yaml
from egapipe.pipeline.config.data import DigitsSource
from egapipe.pipeline.config.load import check
from egapipe.pipeline.datasets import open_dataset
from egapipe.pipeline.errors import UsageError
from egapipe.stages import extract, index
from egapipe.stages.index import command
from egapipe.stages.index.command import leak_lines, write_leaks

# Row of the digits -> what becomes of it among the test images.
COPIES = {3: "pixels", 7: "picture", 11: "picture", 20: "mirrored", 27: "picture"}


def changed(row: int, image: Image.Image) -> Image.Image:
    """As it is; blurred; four times as large; mirrored; with another label."""
    if row == 7:
        return image.filter(ImageFilter.GaussianBlur(0.2))
    if row == 11:
        return image.resize((32, 32), Image.Resampling.BICUBIC)
    return ImageOps.mirror(image) if row == 20 else image


@pytest.fixture(scope="module")
def leaking(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """40 training digits in stores of five shards, 10 others to test on, and in the test folder
    five of the former, and images that cannot be read."""
    folder = tmp_path_factory.mktemp("leaking")
    digits = open_dataset(DigitsSource(kind="digits", split="all"))

    def save(split: str, row: int, label: int, image: Image.Image, ending: str = "png") -> Path:
        place = folder / split / str(label)
        place.mkdir(parents=True, exist_ok=True)
        image.save(place / f"{row:04}.{ending}", quality=95)
        return place / f"{row:04}.{ending}"

    for label in range(10):
        for split in ("train", "test"):
            (folder / split / str(label)).mkdir(parents=True)
    for row in range(50):
        split = "train" if row < 40 else "test"
        save(split, row, int(digits.labels[row]), digits.image(row))
    for row in COPIES:
        label = (int(digits.labels[row]) + (row == 3)) % 10
        large = digits.image(row).resize((64, 64), Image.Resampling.BICUBIC)
        if row == 27:
            save("test", row, label, large, "jpg")
        else:
            save("test", row, label, changed(row, digits.image(row)))
    for split, row in (("train", 101), ("test", 102)):
        save(split, row, 0, digits.image(0)).write_bytes(b"no image")
    config = load_config(
        "quickstart",
        [
            f"dataset.train={{kind: folder, path: {folder / 'train'}}}",
            f"dataset.test={{kind: folder, path: {folder / 'test'}}}",
            f"store.url={folder / 'stores'}",
            f"store.cache_dir={folder / 'cache'}",
            "store.shard_rows=8",
            "extract.max_failures=2",
            "views.count=0",
        ],
    )
    for split in config.splits():
        extract.run(config, split=split, local=True)
    return config


def test_copies_are_listed_first_and_hardly_anything_else(leaking: Config, tmp_path: Path) -> None:
    report = index.find_leaks(leaking)
    # Rows that failed are of neither side.
    assert (report.test_images, report.train_images, report.hashed, report.unread) == (
        15,
        40,
        55,
        0,
    )
    copies = {
        int(Path(leak.test_key).stem): (int(Path(leak.train_key).stem), leak.copy)
        for leak in report.leaks
        if leak.copy is not None
    }
    assert copies == {row: (row, copy) for row, copy in COPIES.items()}
    assert len(report.leaks) <= len(copies) + 1
    assert report.sampled == 40
    assert 0.95 < report.threshold < 1
    first = report.leaks[0]
    assert first.cosine == pytest.approx(1.0, abs=1e-3)
    assert [leak.copy is None for leak in report.leaks] == sorted(
        leak.copy is None for leak in report.leaks
    )
    lines = leak_lines(report)
    assert lines[1] == "copies: 1 same pixels, 3 same picture, 1 mirrored"
    assert lines[3].endswith("(no two of 40 training images are nearer)")
    assert sum("(same pixels, another label)" in line for line in lines) == 1
    write_leaks(tmp_path / "leaks.csv", report.leaks)
    with (tmp_path / "leaks.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["test_key"] for row in rows] == [leak.test_key for leak in report.leaks]
    assert Counter(row["copy"] for row in rows)["picture"] == 3


def test_the_threshold_decides_what_is_listed_and_not_what_is_counted(leaking: Config) -> None:
    few, many = (index.find_leaks(leaking, threshold=t) for t in (1.0, 0.1))
    assert few.levels == many.levels
    assert [leak.copy for leak in few.leaks if leak.copy is None] == []
    assert len(few.leaks) == len(COPIES)
    assert len(many.leaks) == 15
    assert few.sampled == many.sampled == 0
    assert leak_lines(few)[3] == "others from 1 on: 0"
    with pytest.raises(UsageError, match="cosine above 0"):
        index.find_leaks(leaking, threshold=1.5)


def test_without_pictures_embeddings_alone_decide(leaking: Config) -> None:
    report = index.find_leaks(leaking, pictures=False)
    assert (report.hashed, report.unread) == (0, 0)
    assert {leak.copy for leak in report.leaks} == {None}
    assert {3, 11} <= {int(Path(leak.test_key).stem) for leak in report.leaks}
    assert "as --no-pictures says" in leak_lines(report)[1]


def test_a_data_set_that_leaks_nothing_has_a_short_list(digits_store: str, tmp_path: Path) -> None:
    """Of the quickstart's 360 test images 312 are from 0.95 on."""
    sets = [f"store.url={digits_store}", "views.count=2", f"store.cache_dir={tmp_path}"]
    report = index.find_leaks(load_config("quickstart", sets))
    assert report.levels[0.95] > 300
    assert len(report.leaks) < 10
    assert not [leak for leak in report.leaks if leak.copy is not None]


def test_copies_among_the_training_images_do_not_raise_the_threshold(
    leaking: Config, tmp_path: Path
) -> None:
    """Half of them are there twice, encoded anew."""
    folder, alone = tmp_path / "train", index.find_leaks(leaking)
    assert leaking.dataset.train.kind == "folder"
    for number, file in enumerate(sorted(Path(leaking.dataset.train.path).rglob("*.png"))):
        place = folder / file.parent.name
        place.mkdir(parents=True, exist_ok=True)
        (place / file.name).write_bytes(file.read_bytes())
        if number % 2 and file.stem != "0101":
            large = Image.open(file).resize((32, 32), Image.Resampling.BICUBIC)
            large.save(place / f"{file.stem}-again.png")
    changes = {
        "dataset.train": {"kind": "folder", "path": str(folder)},
        "store.url": str(tmp_path / "stores"),
    }
    config = check(override(leaking.model_dump(mode="json"), changes), "twice")
    for split in config.splits():
        extract.run(config, split=split, local=True)
    twice = index.find_leaks(config)
    assert twice.train_images > 55
    assert twice.threshold == pytest.approx(alone.threshold, abs=0.002)


def test_a_store_without_images_is_compared_by_its_embeddings(tmp_path: Path) -> None:
    """They were made elsewhere: the table has keys and labels, and no picture."""
    random = np.random.default_rng(0)
    train = random.normal(size=(30, 16)).astype(np.float32)
    test = np.concatenate([train[4:6], random.normal(size=(5, 16)).astype(np.float32)])
    sources = {}
    for split, embeddings in (("train", train), ("test", test)):
        rows = len(embeddings)
        none = pa.array([{"bytes": None, "path": None}] * rows, type=IMAGE)
        table = pa.table({"image": none, "label": [row % 3 for row in range(rows)]})
        pq.write_table(table, tmp_path / f"{split}.parquet")
        np.save(tmp_path / f"{split}.npy", embeddings)
        sources[split] = f"{{kind: parquet, files: {tmp_path / split}.parquet}}"
    config = load_config(
        "quickstart",
        [
            *(f"dataset.{split}={source}" for split, source in sources.items()),
            "teacher={backend: imported, model: somewhere}",
            f"store={{url: {tmp_path / 'stores'}, cache_dir: {tmp_path / 'cache'}, shard_rows: 8}}",
            "views.count=0",
        ],
    )
    for split in sources:
        extract.import_embeddings(config, str(tmp_path / f"{split}.npy"), split=split)
    report = index.find_leaks(config)
    assert (report.hashed, report.unread) == (0, 37)
    assert [leak.cosine for leak in report.leaks] == pytest.approx([1.0, 1.0], abs=1e-3)
    assert {leak.copy for leak in report.leaks} == {None}
    assert leak_lines(report)[1] == (
        "copies: images were not compared, none of them can be read; equal embeddings are listed"
        " below"
    )


IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def test_one_training_image_has_no_neighbour(tmp_path: Path) -> None:
    changes = [
        "dataset.train={kind: digits, split: train, limit: 1}",
        "dataset.test={kind: digits, split: test, limit: 3}",
        f"store={{url: {tmp_path / 'stores'}, cache_dir: {tmp_path / 'cache'}}}",
        "views.count=0",
    ]
    config = load_config("quickstart", changes)
    for split in config.splits():
        extract.run(config, split=split, local=True)
    report = index.find_leaks(config)
    assert (report.threshold, report.leaks) == (1.0, [])


def test_the_command_prints_and_writes(leaking: Config, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(to_yaml(leaking), "utf-8")
    app = typer.Typer()
    command.register(app)
    arguments = ["leaks", "-c", str(tmp_path / "mine.yaml"), "--output", str(tmp_path / "all.csv")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "copies: 1 same pixels, 3 same picture, 1 mirrored" in done.output
    assert (tmp_path / "all.csv").is_file()
