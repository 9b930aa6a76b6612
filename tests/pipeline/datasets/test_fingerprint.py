import os
import pickle
from pathlib import Path

import pytest

from egapipe.pipeline.datasets import open_dataset
from egapipe.pipeline.datasets.fingerprint import fingerprint_of
from egapipe.pipeline.disk.paths import cache_dir
from tests.pipeline.datasets.samples import (
    folder,
    images,
    parquet,
    write_folder,
    write_parquet,
)

IMAGES = images(300)
LABELS = [row % 7 for row in range(300)]


def entries() -> list[Path]:
    return sorted((cache_dir() / "digests").glob("*"))


def test_the_same_rows_in_one_file_or_in_three(tmp_path: Path) -> None:
    one = write_parquet(tmp_path / "one.parquet", IMAGES, label=LABELS)
    parts = [
        write_parquet(tmp_path / f"{start}.parquet", IMAGES[start:stop], label=LABELS[start:stop])
        for start, stop in ((0, 1), (1, 100), (100, 300))
    ]
    assert open_dataset(parquet(one)).fingerprint() == open_dataset(parquet(*parts)).fingerprint()


def test_every_part_of_a_row_counts(tmp_path: Path) -> None:
    def fingerprint(data: list[bytes | None], labels: list[int], keys: list[str]) -> str:
        file = write_parquet(tmp_path / "a.parquet", data, label=labels, key=keys)
        return open_dataset(parquet(file, key_column="key")).fingerprint()

    a, b = IMAGES[:2]
    variants = [
        fingerprint([a, b], [0, 1], ["x", "y"]),
        fingerprint([b, a], [0, 1], ["x", "y"]),
        fingerprint([a, b], [0, 2], ["x", "y"]),
        fingerprint([a, b], [0, 1], ["x", "z"]),
        fingerprint([a], [0], ["x"]),
        fingerprint([a, b + b"\0"], [0, 1], ["x", "y"]),
        fingerprint([a, b""], [0, 1], ["x", "y"]),
        fingerprint([a, None], [0, 1], ["x", "y"]),
    ]
    assert len(set(variants)) == len(variants)


def test_the_limit_counts(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", IMAGES[:4], label=LABELS[:4])
    first = write_parquet(tmp_path / "b.parquet", IMAGES[:2], label=LABELS[:2])
    limited = open_dataset(parquet(file, limit={"rows": 2, "choose": "first"})).fingerprint()
    assert limited == open_dataset(parquet(first)).fingerprint()
    assert limited != open_dataset(parquet(file)).fingerprint()


def test_a_folder_and_its_copy_elsewhere(tmp_path: Path) -> None:
    files = {f"class{row % 3}/{row:03d}.png": data for row, data in enumerate(IMAGES[:20])}
    here = write_folder(tmp_path / "here", files)
    there = write_folder(tmp_path / "there", files)
    before = open_dataset(folder(here)).fingerprint()
    assert open_dataset(folder(there)).fingerprint() == before
    (there / "class0" / "000.png").write_bytes(IMAGES[21])
    assert open_dataset(folder(there)).fingerprint() != before


def test_a_file_that_cannot_be_read_counts_as_such(tmp_path: Path) -> None:
    write_folder(tmp_path, {"0.png": IMAGES[0]})
    (tmp_path / "1.png").symlink_to(tmp_path / "gone.dat")
    dataset = open_dataset(folder(tmp_path))
    unreadable = dataset.fingerprint()
    assert open_dataset(folder(tmp_path)).fingerprint() == unreadable
    (tmp_path / "gone.dat").write_bytes(b"")
    assert open_dataset(folder(tmp_path)).fingerprint() != unreadable


def test_it_is_remembered_while_the_files_stay_the_same(tmp_path: Path) -> None:
    write_folder(tmp_path, {"0.png": IMAGES[0], "1.png": IMAGES[1]})
    first = open_dataset(folder(tmp_path)).fingerprint()
    (entry,) = entries()
    assert entry.read_text() == first

    # What is remembered is what is returned: the files are not read again.
    entry.write_text("f" * 64)
    assert open_dataset(folder(tmp_path)).fingerprint() == "f" * 64
    # Another configuration or another time stamp is another entry.
    assert open_dataset(folder(tmp_path, limit=2)).fingerprint() == first
    os.utime(tmp_path / "1.png", (1_600_000_001, 1_600_000_001))
    assert open_dataset(folder(tmp_path)).fingerprint() == first


def test_another_image_of_the_same_size_and_time_is_another_data_set(tmp_path: Path) -> None:
    """As `cp -a` leaves it: size and date say nothing."""
    write_folder(tmp_path, {"0.png": b"a" * 100})
    os.utime(tmp_path / "0.png", (1_600_000_000, 1_600_000_000))
    before = open_dataset(folder(tmp_path)).fingerprint()
    write_folder(tmp_path, {"0.png": b"b" * 100})
    os.utime(tmp_path / "0.png", (1_600_000_000, 1_600_000_000))
    assert open_dataset(folder(tmp_path)).fingerprint() != before


def test_an_empty_class_folder_counts_although_no_image_changed(tmp_path: Path) -> None:
    """It moves the numbers of the classes after it."""
    write_folder(tmp_path, {"ant/0.png": IMAGES[0], "cat/1.png": IMAGES[1]})
    before = open_dataset(folder(tmp_path))
    assert before.fingerprint() == before.fingerprint()
    (tmp_path / "bee").mkdir()
    after = open_dataset(folder(tmp_path))
    assert after.labels.tolist() == [0, 2]
    assert after.fingerprint() == fingerprint_of(after) != before.fingerprint()


def test_files_outside_the_table_count_too(tmp_path: Path) -> None:
    outside = tmp_path / "outside.png"
    outside.write_bytes(IMAGES[0])
    file = write_parquet(tmp_path / "a.parquet", [None], [str(outside)], label=[0])
    source = parquet(file)
    dataset = open_dataset(source)
    before = dataset.fingerprint()
    assert len(entries()) == 1
    outside.write_bytes(IMAGES[1])
    assert open_dataset(source).fingerprint() != before


@pytest.mark.parametrize("kind", ["folder", "parquet"])
def test_another_process_finds_what_this_one_remembered(tmp_path: Path, kind: str) -> None:
    write_folder(tmp_path, {"0.png": IMAGES[0]})
    file = write_parquet(tmp_path / "a.parquet", IMAGES[:1], label=[0])
    dataset = open_dataset(folder(tmp_path) if kind == "folder" else parquet(file))
    dataset.fingerprint()
    (entry,) = entries()
    entry.write_text("e" * 64)
    assert pickle.loads(pickle.dumps(dataset)).fingerprint() == "e" * 64  # noqa: S301
