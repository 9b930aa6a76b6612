import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from egapipe.pipeline.config.data import FolderSource
from egapipe.pipeline.datasets import UNLABELLED, open_dataset
from egapipe.pipeline.errors import ImageError, UsageError
from tests.pipeline.datasets.samples import encode, folder, images, pixels, write_folder

PNG = encode(pixels())


def keys_and_labels(path: Path) -> dict[str, int]:
    dataset = open_dataset(folder(path))
    return dict(zip(dataset.keys, dataset.labels.tolist(), strict=True))


def test_sub_folders_are_classes_sorted_by_name(tmp_path: Path) -> None:
    files = ["dog/2.png", "dog/10.png", "cat/z.png", "cat/deep/er/a.png", "Zebra/1.png"]
    write_folder(tmp_path, dict.fromkeys(files, PNG))
    dataset = open_dataset(folder(tmp_path))
    assert dataset.classes == ["Zebra", "cat", "dog"]
    assert list(dataset.keys) == sorted(files)
    assert keys_and_labels(tmp_path) == {
        "Zebra/1.png": 0,
        "cat/deep/er/a.png": 1,
        "cat/z.png": 1,
        "dog/10.png": 2,
        "dog/2.png": 2,
    }


def test_images_directly_in_the_folder_have_no_label(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a.png": PNG, "class/b.png": PNG})
    assert keys_and_labels(tmp_path) == {"a.png": UNLABELLED, "class/b.png": 0}


def test_a_flat_folder_has_no_classes(tmp_path: Path) -> None:
    write_folder(tmp_path, {"b.png": PNG, "a.png": PNG})
    dataset = open_dataset(folder(tmp_path))
    assert dataset.classes is None
    assert list(dataset.keys) == ["a.png", "b.png"]


def test_a_class_without_images_keeps_its_number(tmp_path: Path) -> None:
    """Or the labels of a test folder that lacks a class would mean other classes."""
    write_folder(tmp_path, {"a/1.png": PNG, "c/1.png": PNG})
    (tmp_path / "b").mkdir()
    assert keys_and_labels(tmp_path) == {"a/1.png": 0, "c/1.png": 2}


def test_hidden_and_other_files_are_left_out(tmp_path: Path) -> None:
    names = ["a.JPG", "b.WebP", ".c.png", ".git/d.png", "notes.txt", "Thumbs.db", "noending"]
    write_folder(tmp_path, dict.fromkeys(names, PNG))
    assert list(keys_and_labels(tmp_path)) == ["a.JPG", "b.WebP"]


def test_images_are_found_by_content_whatever_their_ending(tmp_path: Path) -> None:
    write_folder(tmp_path, {"really_a.png": encode(pixels(1), "BMP")})
    image = open_dataset(folder(tmp_path)).image(0)
    np.testing.assert_array_equal(np.asarray(image), pixels(1))


def test_links_are_followed_but_never_in_circles(tmp_path: Path) -> None:
    write_folder(tmp_path / "elsewhere", {"1.png": PNG})
    (tmp_path / "set" / "real").mkdir(parents=True)
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "real" / "around").symlink_to(tmp_path / "set")
    assert keys_and_labels(tmp_path / "set") == {"linked/1.png": 0}


def test_unreadable_images_are_rows_that_raise_image_error(tmp_path: Path) -> None:
    write_folder(tmp_path, {"0.png": PNG, "1.png": b"", "2.png": b"text", "3.png": PNG[:-30]})
    (tmp_path / "4.png").symlink_to(tmp_path / "gone.png")
    dataset = open_dataset(folder(tmp_path))
    assert len(dataset) == 5
    reasons = {}
    for row, key in enumerate(dataset.keys):
        try:
            dataset.image(row)
        except ImageError as error:
            reasons[key] = str(error).partition(":")[0]
    assert reasons == {
        "1.png": "the file is empty",
        "2.png": reasons["2.png"],
        "3.png": "damaged",
        "4.png": "the file cannot be read",
    }
    assert reasons["2.png"].startswith("not an image")


def test_a_device_file_is_not_an_image(tmp_path: Path) -> None:
    """Reading a pipe would wait for ever."""
    write_folder(tmp_path, {"a.png": PNG})
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "pipe.png")
    assert list(keys_and_labels(tmp_path)) == ["a.png"]


def test_another_process_numbers_the_same_files(tmp_path: Path) -> None:
    write_folder(tmp_path, {f"{i}.png": data for i, data in enumerate(images(3))})
    dataset = open_dataset(folder(tmp_path))
    sent = pickle.dumps(dataset)
    write_folder(tmp_path, {"00 comes first.png": PNG})
    received = pickle.loads(sent)  # noqa: S301
    assert list(received.keys) == ["0.png", "1.png", "2.png"]
    np.testing.assert_array_equal(np.asarray(received.image(2)), pixels(2))


def test_a_relative_path_is_kept_absolute(tmp_path: Path, monkeypatch) -> None:
    write_folder(tmp_path / "set", {"0.png": PNG})
    monkeypatch.chdir(tmp_path)
    dataset = open_dataset(FolderSource(kind="folder", path="set"))
    monkeypatch.chdir("/")
    assert dataset.name == "folder/set"
    assert dataset.encoded(0) == PNG


def test_mistakes_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.png").write_bytes(PNG)
    with pytest.raises(UsageError, match=r"absent is not a folder: give the folder"):
        open_dataset(folder(tmp_path / "absent"))
    with pytest.raises(UsageError, match=r"file.png is not a folder"):
        open_dataset(folder(tmp_path / "file.png"))
    with pytest.raises(UsageError, match="folder/empty has no images"):
        open_dataset(folder(tmp_path / "empty"))


def test_files_that_are_left_out_may_have_any_name(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a.png": PNG})
    for name in (b".caf\xe9.png", b"caf\xe9.txt"):
        (tmp_path / os.fsdecode(name)).write_bytes(PNG)
    assert list(keys_and_labels(tmp_path)) == ["a.png"]


def test_a_file_name_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(PNG)
    with pytest.raises(UsageError, match=r"'.*caf\\udce9.png' is not UTF-8: rename it"):
        open_dataset(folder(tmp_path))
