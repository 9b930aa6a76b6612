"""Classes have names: splits agree by them, and a limit takes some of each."""

import inspect
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from egapipe.pipeline.config import load_config
from egapipe.pipeline.config.data import Limit
from egapipe.pipeline.datasets import UNLABELLED, Dataset, aligned, open_dataset, open_split
from egapipe.pipeline.datasets.choice import choose
from egapipe.pipeline.datasets.classes import by_number, of_numbers
from egapipe.pipeline.errors import UsageError
from egapipe.stages import distill
from tests.pipeline.datasets.samples import (
    encode,
    folder,
    images,
    parquet,
    pixels,
    write_folder,
    write_parquet,
)

PNG = encode(pixels())
labels_st = st.lists(st.integers(-1, 6), min_size=1, max_size=80).map(np.array)


def tree(path: Path, *classes: str) -> Dataset:
    files = {f"{name}/{row}.png": PNG for name in classes for row in range(2)}
    return open_dataset(folder(write_folder(path, files)))


def numbers(path: Path, *labels: int | None) -> Dataset:
    return open_dataset(parquet(write_parquet(path, images(len(labels)), label=labels)))


def named(dataset: Dataset) -> list[str | None]:
    names = [*(dataset.classes or []), None]
    return [names[label] for label in dataset.labels]


def test_classes_of_the_test_images_are_those_of_training_by_name(tmp_path: Path) -> None:
    train = tree(tmp_path / "train", "ant", "bee", "cat")
    test = tree(tmp_path / "test", "ant", "cat")
    identity = test.fingerprint()
    same = aligned(test, train)
    assert same.classes == train.classes
    assert same.labels.tolist() == [0, 0, 2, 2]
    assert named(same) == named(test)
    # The data set by itself is what a store was made of.
    assert same.fingerprint() == identity
    assert same.label_numbers.tolist() == [0, 0, 1, 1]
    received = pickle.loads(pickle.dumps(same))  # noqa: S301
    assert received.labels.tolist() == same.labels.tolist()
    assert received.image(3).size == same.image(3).size
    assert same.encoded(3) == test.encoded(3)


def test_a_split_of_a_configuration_is_aligned(tmp_path: Path) -> None:
    tree(tmp_path / "train", "ant", "bee", "cat")
    tree(tmp_path / "test", "ant", "cat")
    train, test = (f"{{kind: folder, path: {tmp_path / n}}}" for n in ("train", "test"))
    config = load_config("quickstart", [f"dataset={{train: {train}, test: {test}}}"])
    assert open_split(config, "test").labels.tolist() == [0, 0, 2, 2]


def test_no_stage_opens_test_images_with_numbers_of_their_own() -> None:
    """Every one says whose classes they have: those of training, or the student's."""
    stages = Path(inspect.getfile(distill)).parents[1]
    opened = [
        (file.name, before)
        for file in stages.rglob("*.py")
        for before in re.findall(r"(\w*\(?)open_dataset\([^()]*\.test\)", file.read_text("utf-8"))
    ]
    assert len(opened) >= 4
    assert {before for _, before in opened} <= {"aligned(", "numbered("}


def test_numbers_are_matched_by_their_value(tmp_path: Path) -> None:
    train = numbers(tmp_path / "a.parquet", 5, 1000, 7)
    test = numbers(tmp_path / "b.parquet", 1000, None, 5)
    assert aligned(test, train).labels.tolist() == [2, UNLABELLED, 0]
    with pytest.raises(UsageError, match=r"images of 1 classes .* \(8\).* are 8; .* 5, 7, 1000"):
        aligned(numbers(tmp_path / "c.parquet", 8), train)


def test_what_cannot_be_matched_is_refused_with_both_lists(tmp_path: Path) -> None:
    train, test = tree(tmp_path / "train", "ant", "bee"), tree(tmp_path / "test", "ant", "cow")
    with pytest.raises(UsageError) as caught:
        aligned(test, train)
    said = str(caught.value)
    assert "(cow)" in said
    assert "ant, cow" in said
    assert "ant, bee" in said
    values = numbers(tmp_path / "a.parquet", 0, 1)
    for one, other in ((values, train), (train, values)):
        with pytest.raises(UsageError, match=r"numbers without class names \(0, 1\).*\(ant, bee\)"):
            aligned(one, other)


def test_a_class_without_images_needs_no_counterpart(tmp_path: Path) -> None:
    test = tree(tmp_path / "test", "ant")
    (tmp_path / "test" / "cow").mkdir()
    train = tree(tmp_path / "train", "aha", "ant")
    same = aligned(open_dataset(folder(tmp_path / "test")), train)
    assert same.labels.tolist() == [1, 1]
    assert len(test) == 2


def test_digits_as_names_and_as_numbers(tmp_path: Path) -> None:
    train = tree(tmp_path / "train", "10", "9")
    assert aligned(numbers(tmp_path / "a.parquet", 9, 10), train).labels.tolist() == [1, 0]


def test_a_student_of_before_keeps_its_numbers(tmp_path: Path) -> None:
    """It has a class for every number up to the largest."""
    train = numbers(tmp_path / "a.parquet", 0, 2, 3)
    same = by_number(aligned(numbers(tmp_path / "b.parquet", 3, 0), train), 4)
    assert same.labels.tolist() == [3, 0]
    assert pickle.loads(pickle.dumps(same)).labels.tolist() == [3, 0]  # noqa: S301
    assert by_number(train, 3) is train


@given(labels_st)
def test_numbers_that_occur_become_classes(labels: np.ndarray) -> None:
    found = of_numbers(labels * 1000 if labels.min() >= 0 else labels)
    names = [*(found.names or []), None]
    assert found.names is None or [int(n) for n in found.names] == sorted(map(int, found.names))
    for label, number in zip(found.labels, labels, strict=True):
        expected = None if number == UNLABELLED else number * (1000 if labels.min() >= 0 else 1)
        assert (None if label == UNLABELLED else int(names[label])) == expected


@given(labels_st, st.integers(1, 90), st.integers(0, 3))
def test_a_limit_takes_as_many_of_each_class_as_can_be(
    labels: np.ndarray, rows: int, seed: int
) -> None:
    keys = [f"k{row}" for row in range(len(labels))]
    chosen = choose(keys, labels, Limit(rows=rows, seed=seed))
    assert len(chosen) == min(rows, len(labels))
    assert (np.diff(chosen) > 0).all()
    known = np.unique(labels[labels >= 0])
    taken = np.array([(labels[chosen] == label).sum() for label in known])
    there = np.array([(labels == label).sum() for label in known])
    for count, all_of_it in zip(taken, there, strict=True):
        assert count == all_of_it or count >= taken.max() - 1
    # A larger limit drops none.
    assert set(chosen) <= set(choose(keys, labels, Limit(rows=rows + 1, seed=seed)))


def test_a_limit_is_drawn_by_its_seed(tmp_path: Path) -> None:
    tree(tmp_path / "set", *"abcdefgh")
    sets = [
        list(open_dataset(folder(tmp_path / "set", limit=limit)).keys)
        for limit in (8, {"rows": 8}, {"rows": 8, "seed": 1}, {"rows": 8, "choose": "first"})
    ]
    assert sets[0] == sets[1] != sets[2]
    assert [key[0] for key in sets[0]] == [key[0] for key in sets[2]] == list("abcdefgh")
    assert {key[0] for key in sets[3]} == set("abcd")


def test_what_a_user_should_know_is_said(tmp_path: Path) -> None:
    tree(tmp_path / "set", "ant", "bee", "cow")
    others = ["notes.txt", "ant/a.heic", "ant/b.HEIC", "noending"]
    write_folder(tmp_path / "set", dict.fromkeys(others, b""))
    notes = list(open_dataset(folder(tmp_path / "set", limit=4)).notes)
    assert notes[0].startswith(
        "folder/set: 4 files are skipped (2 .heic, 1 .txt, 1 without an ending): images end in .jpg"
    )
    assert notes[1] == "folder/set: 6 of 6 rows have one of 3 classes"
    assert notes[2:] == [
        "folder/set: 4 of 6 rows (as many of each class as can be, drawn by seed 0; `choose: first`"
        " takes the first rows)"
    ]
    ids = numbers(tmp_path / "ids.parquet", *range(7, 40_007, 1000))
    assert ids.notes[1] == (
        "warning: parquet/train has 40 classes for 40 labelled rows: are its labels ids of the"
        " images?"
    )
