import hashlib
import os
import pickle
import shutil
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from egapipe.pipeline.config.data import ArchiveSource
from egapipe.pipeline.datasets import UNLABELLED, Dataset, open_dataset
from egapipe.pipeline.datasets.files import download
from egapipe.pipeline.datasets.files.archives import ARCHIVES
from egapipe.pipeline.disk.paths import cache_dir
from egapipe.pipeline.errors import ImageError, UsageError
from tests.pipeline.datasets.archives import CLASSES, cifar100, squares, stl10, tar_gz, tinyimagenet
from tests.pipeline.datasets.samples import pixels
from tests.pipeline.datasets.web import Site, serving

LABELS = [2, 0, 1, 1, 0]
SMALL, SMALL_TEST = squares(5, 32), squares(3, 32, seed=1)
LARGE = {"train": squares(3, 96), "test": squares(4, 96, 1), "unlabelled": squares(5, 96, 2)}


@contextmanager
def offered(content: bytes) -> Iterator[tuple[Site, dict[str, Any]]]:
    """A server of an archive, and the fields that name it."""
    with serving(content) as site:
        yield site, {"url": site.url, "sha256": hashlib.sha256(content).hexdigest()}


def opened(name: str, split: str = "train", **fields: Any) -> Dataset:
    source = {"kind": "archive", "name": name, "split": split, **fields}
    return open_dataset(ArchiveSource.model_validate(source))


def test_cifar100_binary() -> None:
    with offered(cifar100(SMALL, SMALL_TEST, LABELS)) as (site, fields):
        train, test = opened("cifar100", **fields), opened("cifar100", "test", **fields)
    assert len(site.asked) == 1
    assert train.name == "cifar100/train"
    assert train.classes == test.classes == CLASSES
    assert list(train.keys)[:2] == ["cifar100/train/0", "cifar100/train/1"]
    assert train.labels.tolist() == LABELS
    assert test.labels.tolist() == LABELS[:3]
    for dataset, images in ((train, SMALL), (test, SMALL_TEST)):
        seen = np.stack([np.asarray(dataset.image(row)) for row in range(len(dataset))])
        np.testing.assert_array_equal(seen, images)
        assert len(dataset.encoded(0)) == 3072


@pytest.mark.parametrize("split", ["train", "test", "unlabelled"])
def test_stl10_binary(split: str) -> None:
    with offered(stl10(*LARGE.values(), labels=LABELS)) as (_, fields):
        dataset = opened("stl10", split, **fields)
    images = LARGE[split]
    expected = [UNLABELLED] * 5 if split == "unlabelled" else LABELS[: len(images)]
    assert dataset.labels.tolist() == expected
    assert dataset.classes == CLASSES
    seen = np.stack([np.asarray(dataset.image(row)) for row in range(len(dataset))])
    np.testing.assert_array_equal(seen, images)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_tinyimagenet(compression: int) -> None:
    with offered(tinyimagenet(compression)) as (site, fields):
        train, test, free = (
            opened("tinyimagenet", split, **fields) for split in ("train", "test", "unlabelled")
        )
    assert len(site.asked) == 1
    assert train.classes == ["n01", "n02"]
    assert dict(zip(train.keys, train.labels.tolist(), strict=True)) == {
        "train/n01/images/n01_0.JPEG": 0,
        "train/n01/images/n01_1.JPEG": 0,
        "train/n02/images/n02_0.JPEG": 1,
        "train/n02/images/n02_1.JPEG": 1,
    }
    assert dict(zip(test.keys, test.labels.tolist(), strict=True)) == {
        "val/images/val_0.JPEG": 1,
        "val/images/val_1.JPEG": 0,
    }
    assert free.labels.tolist() == [UNLABELLED]
    for dataset, row, seed in ((train, 3, 3), (test, 1, 5), (free, 0, 6)):
        difference = np.asarray(dataset.image(row)).astype(int) - pixels(seed, (64, 64))
        assert np.abs(difference).max() <= 12


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cifar100", cifar100(SMALL, SMALL_TEST, LABELS)),
        ("stl10", stl10(*LARGE.values(), labels=LABELS)),
        ("tinyimagenet", tinyimagenet()),
    ],
)
def test_every_archive(name: str, content: bytes) -> None:
    """Limits, threads, other processes and the content's fingerprint."""
    with offered(content) as (_, fields):
        dataset = opened(name, **fields)
        part = opened(name, limit={"rows": 2, "choose": "first"}, **fields)
    rows = range(len(dataset))
    expected = [dataset.encoded(row) for row in rows]
    assert [part.encoded(row) for row in range(2)] == expected[:2]
    with pytest.raises(IndexError, match="row 2 of data set"):
        part.image(2)
    sent = pickle.dumps(dataset)
    assert len(sent) < 1000
    received = pickle.loads(sent)  # noqa: S301
    assert list(received.keys) == list(dataset.keys)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(received.encoded, [*rows] * 50)) == expected * 50
    assert received.fingerprint() == dataset.fingerprint() != part.fingerprint()


def test_an_interrupted_download_resumes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_PAUSE_SECONDS", 0.0)
    content = cifar100(SMALL, SMALL_TEST, LABELS)
    with offered(content) as (site, fields):
        site.cut_at = [1000, *[0] * 20]
        with pytest.raises(UsageError, match="run it again, it goes on where it stopped"):
            opened("cifar100", **fields)
        site.cut_at, site.asked = [], []
        assert opened("cifar100", **fields).labels.tolist() == LABELS
        assert site.asked == ["bytes=1000-"]


def test_a_wrong_checksum_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with offered(cifar100(SMALL, SMALL_TEST, LABELS)) as (site, fields):
        site.content += b"\0"
        with pytest.raises(UsageError, match="does not have the checksum sha256:"):
            opened("cifar100", folder=str(tmp_path), **fields)
    assert [f.name for f in tmp_path.iterdir() if not f.name.startswith(".")] == []


def test_the_published_checksum_is_asked_of_a_mirror(tmp_path: Path) -> None:
    with serving(cifar100(SMALL, SMALL_TEST, LABELS)) as site:
        for name, archive in ARCHIVES.items():
            with pytest.raises(UsageError, match=f"does not have the checksum {archive.checksum}"):
                opened(name, url=site.url, folder=str(tmp_path))


def test_only_content_is_kept(tmp_path: Path) -> None:
    content = cifar100(SMALL, SMALL_TEST, LABELS)
    with offered(content) as (_, fields):
        opened("cifar100", folder=str(tmp_path), **fields)
    (folder,) = (f for f in tmp_path.iterdir() if not f.name.startswith("."))
    assert folder.name == f"cifar100-{fields['sha256'][:12]}"
    assert sorted(f.name for f in folder.iterdir()) == [
        "fine_label_names.txt",
        "test.bin",
        "train.bin",
    ]
    assert not (cache_dir() / "archives").exists()


def test_an_archive_that_the_user_brought_is_the_users(tmp_path: Path) -> None:
    content = cifar100(SMALL, SMALL_TEST, LABELS)
    mine = tmp_path / "cifar-100-binary.tar.gz"
    mine.write_bytes(content)
    with offered(content) as (_, fields):
        assert opened("cifar100", folder=str(tmp_path), **fields).labels.tolist() == LABELS
        assert mine.read_bytes() == content
        mine.write_bytes(b"another one")
        shutil.rmtree(tmp_path / f"cifar100-{fields['sha256'][:12]}")
        with pytest.raises(UsageError, match="move it away"):
            opened("cifar100", folder=str(tmp_path), **fields)
    assert mine.read_bytes() == b"another one"


def test_what_a_killed_run_left_is_cleared(tmp_path: Path) -> None:
    content = cifar100(SMALL, SMALL_TEST, LABELS)
    with offered(content) as (_, fields):
        left = tmp_path / f".cifar100-{fields['sha256'][:12]}.x1y2" / "content"
        left.mkdir(parents=True)
        (left / "train.bin").write_bytes(b"half")
        assert opened("cifar100", folder=str(tmp_path), **fields).labels.tolist() == LABELS
    assert not left.exists()
    assert len([f for f in tmp_path.iterdir() if f.is_dir()]) == 1


def test_workers_that_open_it_at_once_download_it_once() -> None:
    content = cifar100(SMALL, SMALL_TEST, LABELS)
    with offered(content) as (site, fields), ThreadPoolExecutor(4) as pool:
        opening = [pool.submit(opened, "cifar100", **fields) for _ in range(4)]
        assert [done.result().labels.tolist() for done in opening] == [LABELS] * 4
        assert len(site.asked) == 1


def test_an_archive_brought_by_hand_needs_no_network(tmp_path: Path) -> None:
    content = tinyimagenet()
    (tmp_path / "tiny-imagenet-200.zip").write_bytes(content)
    fields = {"url": "http://127.0.0.1:9/x", "sha256": hashlib.sha256(content).hexdigest()}
    assert len(opened("tinyimagenet", folder=str(tmp_path), **fields)) == 4


def test_members_cannot_be_written_elsewhere(tmp_path: Path) -> None:
    """Names that climb out of the folder, and ones that were not asked for."""
    good = np.concatenate([np.array([0, 1], np.uint8), SMALL[0].transpose(2, 0, 1).ravel()])
    members = {
        "../../evil.txt": b"evil",
        "/evil.txt": b"evil",
        "../../fine_label_names.txt": b"a\nb\n",
        "x/train.bin": good.tobytes(),
        "x/test.bin": good.tobytes(),
    }
    with offered(tar_gz(members)) as (_, fields):
        dataset = opened("cifar100", folder=str(tmp_path / "a" / "b"), **fields)
    assert dataset.classes == ["a", "b"]
    written = {f.name for f in tmp_path.rglob("*") if f.is_file()}
    assert written - {".cifar100.lock"} == {"train.bin", "test.bin", "fine_label_names.txt"}


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"a.txt": b"a"}, "has no fine_label_names.txt, test.bin, train.bin"),
        ({"train.bin": b"x" * 3073}, "has 3,073 bytes, not a multiple of 3,074"),
        ({"train.bin": b""}, "has 0 bytes"),
        ({"train.bin": b"\x63" * 3074}, "has the label 99 and names for 1 classes"),
    ],
)
def test_another_layout_is_explained(members: dict[str, bytes], said: str) -> None:
    if "train.bin" in members:
        members = {"fine_label_names.txt": b"a", "test.bin": b"", **members}
    with offered(tar_gz(members)) as (_, fields), pytest.raises(UsageError, match=said) as caught:
        opened("cifar100", **fields)
    assert "\n" not in str(caught.value)


def test_what_is_no_archive_at_all() -> None:
    whole = cifar100(SMALL, SMALL_TEST, LABELS)
    for content in (b"<html>moved</html>", whole[: len(whole) // 2]):
        with (
            offered(content) as (_, fields),
            pytest.raises(UsageError, match="cannot be unpacked"),
        ):
            opened("cifar100", **fields)
    with offered(b"<html>") as (_, fields), pytest.raises(UsageError, match="cannot be read: File"):
        opened("tinyimagenet", **fields)


def test_stl10_with_too_few_labels() -> None:
    with (
        offered(stl10(*LARGE.values(), labels=LABELS[:2])) as (_, fields),
        pytest.raises(UsageError, match=r"3 images in train_X.bin, 2 labels"),
    ):
        opened("stl10", **fields)


def test_damage_inside_the_zip_is_an_image_error(tmp_path: Path) -> None:
    with offered(tinyimagenet(zipfile.ZIP_STORED)) as (_, fields):
        dataset = opened("tinyimagenet", folder=str(tmp_path), **fields)
    (file,) = tmp_path.glob("tinyimagenet-*/*.zip")
    data = bytearray(file.read_bytes())
    data[data.index(dataset.encoded(1)) + 200] ^= 1
    file.write_bytes(data)
    with pytest.raises(ImageError, match="checksum does not fit"):
        dataset.image(1)
    assert dataset.image(0).size == (64, 64)
    os.truncate(file, 10)
    with pytest.raises(ImageError, match="bytes before the image does"):
        dataset.image(0)


def test_cifar100_has_no_unlabelled_part() -> None:
    with pytest.raises(ValidationError, match="splits train and test, not unlabelled"):
        ArchiveSource(kind="archive", name="cifar100", split="unlabelled")
