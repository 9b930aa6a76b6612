import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from egapipe.pipeline.config.data import SeveralSource, SourceConfig
from egapipe.pipeline.datasets import UNLABELLED, Dataset, open_dataset
from egapipe.pipeline.datasets.kinds.several import unique_prefixes
from egapipe.pipeline.errors import ImageError, UsageError
from tests.pipeline.datasets.samples import (
    encode,
    folder,
    images,
    parquet,
    pixels,
    write_folder,
    write_parquet,
    write_tar,
)

SOURCE: TypeAdapter[SourceConfig] = TypeAdapter(SourceConfig)


def several(*sources: object, **fields: object) -> Dataset:
    dumped = [s.model_dump() if hasattr(s, "model_dump") else s for s in sources]
    return open_dataset(SOURCE.validate_python({"kind": "several", "sources": dumped, **fields}))


def tree(path: Path, *files: str, start: int = 0) -> Path:
    return write_folder(path, dict(zip(files, images(len(files), start), strict=True)))


def test_rows_of_each_source_in_turn(tmp_path: Path) -> None:
    a = tree(tmp_path / "a", "cat/1.png", "dog/1.png")
    b = tree(tmp_path / "b", "cat/1.png", start=5)
    dataset = several(
        folder(a), folder(b), {"kind": "digits", "limit": {"rows": 2, "choose": "first"}}
    )
    assert list(dataset.keys) == [
        "folder/a:cat/1.png",
        "folder/a:dog/1.png",
        "folder/b:cat/1.png",
        "digits/train:digits/0000",
        "digits/train:digits/0001",
    ]
    assert dataset.name == "folder/a+folder/b+digits/train"
    np.testing.assert_array_equal(np.asarray(dataset.image(2)), pixels(5))
    assert dataset.image(4).size == (8, 8)
    assert dataset.encoded(1) == encode(pixels(1))


def test_classes_of_one_name_are_one_class(tmp_path: Path) -> None:
    a = tree(tmp_path / "a", "cat/1.png", "dog/1.png")
    b = tree(tmp_path / "b", "ant/1.png", "dog/1.png", "loose.png")
    dataset = several(folder(a), folder(b))
    assert dataset.classes == ["cat", "dog", "ant"]
    assert dict(zip(dataset.keys, dataset.labels.tolist(), strict=True)) == {
        "folder/a:cat/1.png": 0,
        "folder/a:dog/1.png": 1,
        "folder/b:ant/1.png": 2,
        "folder/b:dog/1.png": 1,
        "folder/b:loose.png": UNLABELLED,
    }
    assert dataset.labels.dtype == np.int64


def test_unlabelled_images_join_named_ones(tmp_path: Path) -> None:
    named = tree(tmp_path / "named", "cat/1.png", "dog/1.png")
    plain = tree(tmp_path / "plain", "1.png", "2.png")
    dataset = several(folder(plain), folder(named))
    assert dataset.classes == ["cat", "dog"]
    assert dataset.labels.tolist() == [-1, -1, 0, 1]


def test_numbers_without_names_are_one_numbering(tmp_path: Path) -> None:
    files = [write_parquet(tmp_path / f"{n}.parquet", images(2, n), label=[n, 7]) for n in range(2)]
    dataset = several(*(parquet(file) for file in files))
    assert dataset.labels.tolist() == [0, 2, 1, 2]
    assert dataset.classes == ["0", "1", "7"]
    # As before there were names for them: stores keep their identity.
    assert dataset.label_numbers.tolist() == [0, 7, 1, 7]
    assert [key.partition(":")[0] for key in dataset.keys] == [
        *["parquet/train"] * 2,
        *["parquet/train#2"] * 2,
    ]


def test_numbers_cannot_be_matched_with_names(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", images(2), label=[0, 1])
    named = folder(tree(tmp_path / "named", "cat/1.png"))
    with pytest.raises(UsageError, match=r"labels of parquet/train are numbers .* folder/named"):
        several(named, parquet(file))
    dataset = several(named, parquet(file, label_column="none"))
    assert dataset.labels.tolist() == [0, -1, -1]


def test_names_given_in_the_configuration_are_matched(tmp_path: Path) -> None:
    named = folder(tree(tmp_path / "named", "cat/1.png", "dog/1.png"))
    file = write_parquet(tmp_path / "a.parquet", images(2), label=[0, 1])
    tar = write_tar(tmp_path / "a.tar", {"0.png": encode(pixels()), "0.cls": b"1"})
    dataset = several(
        named,
        parquet(file, class_names=["dog", "fox"]),
        {"kind": "webdataset", "files": str(tar), "class_names": ["fox", "cat"]},
    )
    assert dataset.classes == ["cat", "dog", "fox"]
    assert dataset.labels.tolist() == [0, 1, 1, 2, 0]


def test_more_labels_than_names_and_a_name_twice(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", images(2), label=[0, 1])
    for names, said in ((["a"], "label 1 and names for 1 classes"), (["a", "a"], "'a' twice")):
        with pytest.raises(UsageError, match=said):
            several(parquet(file, class_names=names))


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 99])
def test_limits_of_a_source_and_of_all(tmp_path: Path, limit: int) -> None:
    a, b = (folder(tree(tmp_path / n, "1.png", "2.png", "3.png"), limit=2) for n in "ab")
    whole, part = several(a, b), several(a, b, limit={"rows": limit, "choose": "first"})
    assert len(whole) == 4
    assert list(part.keys) == list(whole.keys)[:limit]
    assert part.labels.tolist() == whole.labels.tolist()[:limit]
    with pytest.raises(IndexError, match=f"row {len(part)} of"):
        part.encoded(len(part))


def test_the_fingerprint_covers_every_source(tmp_path: Path) -> None:
    a = folder(tree(tmp_path / "a", "1.png", "2.png"))
    b = folder(tree(tmp_path / "b", "1.png", start=8))
    before = several(a, b).fingerprint()
    assert several(a, b).fingerprint() == before
    assert len({before, several(b, a).fingerprint(), several(a).fingerprint()}) == 3
    (tmp_path / "b" / "1.png").write_bytes(encode(pixels(9)))
    assert several(a, b).fingerprint() != before


def test_it_does_not_depend_on_where_the_files_lie(tmp_path: Path) -> None:
    seen = []
    for place in ("here", "there"):
        a = folder(tree(tmp_path / place / "a", "1.png"))
        b = folder(tree(tmp_path / place / "b", "1.png"))
        seen.append(several(a, b).fingerprint())
    assert seen[0] == seen[1]


def test_another_process_has_the_same_rows(tmp_path: Path) -> None:
    a = tree(tmp_path / "a", "2.png")
    dataset = several(folder(a), {"kind": "digits", "limit": 3}, limit=3)
    sent = pickle.dumps(dataset)
    tree(a, "1.png", start=7)
    received = pickle.loads(sent)  # noqa: S301
    assert list(received.keys) == list(dataset.keys)
    assert [received.encoded(row) for row in range(3)] == [dataset.encoded(row) for row in range(3)]


def test_a_bad_image_fails_alone(tmp_path: Path) -> None:
    a = folder(write_folder(tmp_path / "a", {"1.png": b"text"}))
    b = folder(tree(tmp_path / "b", "1.png"))
    dataset = several(a, b)
    with pytest.raises(ImageError, match="not an image"):
        dataset.image(0)
    assert dataset.image(1).mode == "RGB"


@given(st.lists(st.sampled_from(["a", "a:b", "a%3Ab", "a#2", "a#2#2"]), max_size=8))
def test_prefixes_are_unique_and_end_at_the_first_colon(names: list[str]) -> None:
    prefixes = unique_prefixes(names)
    assert len(set(prefixes)) == len(prefixes) == len(names)
    assert not any(":" in prefix for prefix in prefixes)


def test_sources_are_neither_empty_nor_nested() -> None:
    digits = {"kind": "digits"}
    for sources in ([], [{"kind": "several", "sources": [digits]}]):
        with pytest.raises(ValidationError):
            SeveralSource.model_validate({"kind": "several", "sources": sources})
