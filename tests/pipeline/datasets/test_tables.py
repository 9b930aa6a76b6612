import errno
import hashlib
import json
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from egapipe.pipeline.config.data import ParquetSource
from egapipe.pipeline.datasets import UNLABELLED, Dataset, open_dataset
from egapipe.pipeline.datasets.decoding import reading
from egapipe.pipeline.datasets.decoding.reading import MAX_BYTES
from egapipe.pipeline.datasets.kinds import groups
from egapipe.pipeline.errors import ImageError, MachineError, UsageError
from tests.pipeline.datasets.samples import encode, images, parquet, pixels, write_parquet

IMAGES = images(6)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_parquet(tmp_path / "set.parquet", IMAGES, label=[3, 1, 4, 1, 5, 0])


def mistake(source: ParquetSource) -> str:
    with pytest.raises(UsageError) as caught:
        open_dataset(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_rows_of_a_file(file: Path) -> None:
    dataset = open_dataset(parquet(file))
    assert dataset.name == "parquet/train"
    assert dataset.classes == ["0", "1", "3", "4", "5"]
    assert list(dataset.keys) == [f"train/{row:08d}" for row in range(6)]
    assert dataset.labels.dtype == np.int64
    assert dataset.labels.tolist() == [2, 1, 3, 1, 4, 0]
    for row in range(6):
        assert dataset.encoded(row) == IMAGES[row]
        np.testing.assert_array_equal(np.asarray(dataset.image(row)), pixels(row))


def test_files_follow_each_other_in_the_order_given(tmp_path: Path) -> None:
    b = write_parquet(tmp_path / "b.parquet", IMAGES[:2], label=[0, 1])
    a = write_parquet(tmp_path / "a.parquet", IMAGES[2:], label=[2, 3, 4, 5])
    assert open_dataset(parquet(b, a)).labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert open_dataset(parquet(tmp_path / "*.parquet")).labels.tolist() == [2, 3, 4, 5, 0, 1]


def test_a_path_with_the_letters_of_a_pattern(tmp_path: Path) -> None:
    (tmp_path / "a[1]").mkdir()
    file = write_parquet(tmp_path / "a[1]" / "x?.parquet", IMAGES, label=range(6))
    assert len(open_dataset(parquet(file))) == 6


def test_a_file_that_changed_is_read_again(file: Path) -> None:
    before = open_dataset(parquet(file)).fingerprint()
    write_parquet(file, IMAGES[::-1], label=range(6))
    dataset = open_dataset(parquet(file))
    assert dataset.encoded(0) == IMAGES[5]
    assert dataset.fingerprint() != before


@pytest.mark.parametrize(
    ("split", "rows"),
    [
        ("train[2:4]", [2, 3]),
        ("train[-2:]", [4, 5]),
        ("train[50%:]", [3, 4, 5]),
        ("train[4:]+train[:1]", [4, 5, 0]),
        ("all", [0, 1, 2, 3, 4, 5]),
    ],
)
def test_a_slice_keeps_the_keys_of_the_whole(file: Path, split: str, rows: list[int]) -> None:
    dataset = open_dataset(parquet(file, split=split))
    assert list(dataset.keys) == [f"train/{row:08d}" for row in rows]
    assert [dataset.encoded(i) for i in range(len(rows))] == [IMAGES[row] for row in rows]


def test_the_split_names_local_files(file: Path) -> None:
    dataset = open_dataset(parquet(file, split="validation[:2]"))
    assert list(dataset.keys) == ["validation/00000000", "validation/00000001"]


def test_keys_of_a_column(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", IMAGES[:2], label=[0, 1], id=["x", "ü"], n=[7, 9])
    assert list(open_dataset(parquet(file, key_column="id")).keys) == ["x", "ü"]
    assert list(open_dataset(parquet(file, key_column="n")).keys) == ["7", "9"]


def test_keys_must_be_unique_text_or_integers(tmp_path: Path) -> None:
    file = write_parquet(
        tmp_path / "a.parquet",
        IMAGES[:4],
        label=range(4),
        twice=["a", "b", "b", "a"],
        gap=["a", None, "b", "c"],
        real=[0.5, 1, 2, 3],
    )
    assert "rows 1 and 2 have the same key 'b'" in mistake(parquet(file, key_column="twice"))
    assert "'gap' has no key in row 1" in mistake(parquet(file, key_column="gap"))
    assert "'real' holds double" in mistake(parquet(file, key_column="real"))
    assert "key_column 'absent' is not a column" in mistake(parquet(file, key_column="absent"))
    assert "rows 0 and 1 have the same key" in mistake(parquet(file, split="train[:1]+train[:1]"))


@pytest.mark.parametrize("name", ["label", "labels", "fine_label"])
def test_label_columns_are_found_by_name(tmp_path: Path, name: str) -> None:
    columns = {name: [5, 6], "other": [0, 0]}
    file = write_parquet(tmp_path / "a.parquet", IMAGES[:2], **columns)
    assert open_dataset(parquet(file)).classes == ["5", "6"]


def test_class_labels_are_found_and_name_the_classes(tmp_path: Path) -> None:
    features = {
        "img": {"_type": "Image"},
        "animal": {"names": ["cat", "dog"], "_type": "ClassLabel"},
    }
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    file = write_parquet(
        tmp_path / "a.parquet", IMAGES[:3], schema_metadata=metadata, animal=[1, 0, None]
    )
    dataset = open_dataset(parquet(file))
    assert dataset.classes == ["cat", "dog"]
    assert dataset.labels.tolist() == [1, 0, UNLABELLED]
    assert dataset.encoded(0) == IMAGES[0]


def test_labels_that_are_not_there(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", IMAGES[:3], label=[2, None, -1], x=[1, 2, 3])
    assert open_dataset(parquet(file)).labels.tolist() == [0, UNLABELLED, UNLABELLED]
    assert open_dataset(parquet(file)).classes == ["2"]
    assert open_dataset(parquet(file, label_column="x")).label_numbers.tolist() == [1, 2, 3]
    without = open_dataset(parquet(file, label_column="none"))
    assert without.labels.tolist() == [UNLABELLED] * 3
    assert without.classes is None


def test_what_is_no_label(tmp_path: Path) -> None:
    file = write_parquet(
        tmp_path / "a.parquet",
        IMAGES[:2],
        text=["cat", ""],
        time=pa.array([0, 1], pa.timestamp("s")),
        real=[0.0, 1.5],
        below=[0, -2],
        huge=pa.array([0, 2**63], pa.uint64()),
    )
    assert "'time' holds timestamp[ms], labels must be names or whole numbers" in mistake(
        parquet(file, label_column="time")
    )
    assert "'real' holds fractions" in mistake(parquet(file, label_column="real"))
    assert "'below' holds -2: no label is negative" in mistake(parquet(file, label_column="below"))
    assert "'text' has no name in row 1" in mistake(parquet(file, label_column="text"))
    assert "'huge' holds a number beyond" in mistake(parquet(file, label_column="huge"))


@pytest.mark.parametrize(
    ("values", "names", "expected"),
    [
        ([1000, 5, 1000], ["5", "1000"], [1, 0, 1]),
        ([0, 4611686018427387904, 900000001], ["0", "900000001", "4611686018427387904"], [0, 2, 1]),
        ([2, 0, 1], ["0", "1", "2"], [2, 0, 1]),
        (["dog", "ant", None], ["ant", "dog"], [1, 0, -1]),
        ([True, None, False], ["false", "true"], [1, -1, 0]),
        ([3.0, float("nan"), 2.0], ["2", "3"], [1, -1, 0]),
        (pa.array(["b", "a", "b"]).dictionary_encode(), ["a", "b"], [1, 0, 1]),
        (pa.array([7, None, 4]).dictionary_encode(), ["4", "7"], [1, -1, 0]),
        (pa.array(["x", "y", "x"], pa.large_string()), ["x", "y"], [0, 1, 0]),
        (pa.nulls(3), None, [-1, -1, -1]),
    ],
)
def test_values_that_occur_are_the_classes(
    tmp_path: Path, values: list[object], names: list[str] | None, expected: list[int]
) -> None:
    file = write_parquet(tmp_path / "a.parquet", IMAGES[:3], label=values)
    dataset = open_dataset(parquet(file))
    assert dataset.classes == names
    assert dataset.labels.tolist() == expected


def test_identity_covers_the_numbers_that_the_file_has(tmp_path: Path) -> None:
    """As before classes were named by them: stores of gapped labels keep pairing."""
    file = write_parquet(tmp_path / "a.parquet", IMAGES[:2], label=[1000, 5])
    dataset = open_dataset(parquet(file))
    digest = hashlib.sha256(b"egapipe data set fingerprint 1")
    for row, number in enumerate([1000, 5]):
        digest.update((14).to_bytes(8, "little") + f"train/{row:08d}".encode())
        digest.update(number.to_bytes(8, "little"))
        digest.update(len(IMAGES[row]).to_bytes(8, "little"))
        digest.update(hashlib.sha256(IMAGES[row]).digest())
    assert dataset.fingerprint() == digest.hexdigest()


@pytest.mark.parametrize("kept", [0, 1 << 28])
def test_row_groups_are_read_in_place(tmp_path: Path, caches: Path, kept: int, monkeypatch) -> None:
    """In any order, by threads, whatever fits; nothing is copied to another cache."""
    monkeypatch.setattr(groups, "KEPT_BYTES", kept)
    whole = write_parquet(tmp_path / "whole.parquet", images(20), label=range(20))
    files = [tmp_path / f"{n}.parquet" for n in range(2)]
    table = pq.read_table(whole)
    pq.write_table(table.slice(0, 13), files[0], row_group_size=3)
    pq.write_table(table.slice(13), files[1], row_group_size=4)
    dataset = open_dataset(parquet(*files, split="train[2:-1]"))
    assert list(dataset.keys) == [f"train/{row:08d}" for row in range(2, 19)]
    rows = np.random.default_rng(0).integers(0, 17, 200).tolist()
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(dataset.encoded, rows))
    assert read == [images(1, row + 2)[0] for row in rows]
    assert not (caches / "datasets").exists()


def test_another_file_of_the_same_size_and_time_has_its_own_images(tmp_path: Path) -> None:
    """The cache of `datasets` took one for the other."""
    file = write_parquet(tmp_path / "a.parquet", [b"a" * 90], label=[0])
    os.utime(file, (1_600_000_000, 1_600_000_000))
    before = open_dataset(parquet(file))
    assert before.encoded(0) == b"a" * 90
    identity = before.fingerprint()
    write_parquet(file, [b"b" * 90], label=[0])
    os.utime(file, (1_600_000_000, 1_600_000_000))
    after = open_dataset(parquet(file))
    assert after.encoded(0) == b"b" * 90
    assert after.fingerprint() != identity


def test_trouble_of_the_machine_is_no_damaged_row_group(file: Path, monkeypatch) -> None:
    monkeypatch.setattr(reading, "PAUSES", (0.0,))
    dataset = open_dataset(parquet(file))

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(pq, "ParquetFile", refuse)
    with pytest.raises(MachineError, match="EIO"):
        dataset.encoded(0)


def test_columns_that_are_not_found_are_listed(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", IMAGES[:1], kind=["cat"], y=[1])
    listed = "columns: img ({bytes, path}), kind (string), y (int64)"
    assert mistake(parquet(file)) == (
        f"no column of labels: set label_column, or `label_column: none`; {listed}"
    )
    assert mistake(parquet(file, label_column="label")) == (
        f"label_column 'label' is not a column; {listed}"
    )
    assert mistake(parquet(file, label_column="y", image_column="image")) == (
        f"image_column 'image' is not a column; {listed}"
    )
    assert mistake(parquet(file, label_column="y", image_column="kind")) == (
        f"image_column 'kind' holds string, not images ({{bytes, path}}); {listed}"
    )


def test_the_column_of_images_must_be_the_only_one_or_named(tmp_path: Path) -> None:
    rows = [{"bytes": data, "path": None} for data in IMAGES]
    table = pa.table({"left": rows, "right": rows[::-1], "label": range(6)})
    pq.write_table(table, tmp_path / "two.parquet")
    pq.write_table(pa.table({"label": [1]}), tmp_path / "none.parquet")
    assert "several columns of images (left, right): set image_column" in mistake(
        parquet(tmp_path / "two.parquet")
    )
    assert "no column of images: set image_column; columns: label (int64)" in mistake(
        parquet(tmp_path / "none.parquet")
    )
    dataset = open_dataset(parquet(tmp_path / "two.parquet", image_column="right"))
    assert dataset.encoded(0) == IMAGES[5]


def test_a_row_of_bytes_or_of_a_path(tmp_path: Path) -> None:
    (tmp_path / "beside.png").write_bytes(IMAGES[1])
    file = write_parquet(
        tmp_path / "a.parquet",
        [IMAGES[0], None, None, None, b""],
        ["ignored.png", str(tmp_path / "beside.png"), str(tmp_path / "absent.png"), None, None],
        label=range(5),
    )
    dataset = open_dataset(parquet(file))
    assert [dataset.encoded(0), dataset.encoded(1)] == IMAGES[:2]
    with pytest.raises(ImageError, match="cannot be read: No such file"):
        dataset.image(2)
    with pytest.raises(ImageError, match="neither bytes nor a path"):
        dataset.image(3)
    with pytest.raises(ImageError, match="empty"):
        dataset.image(4)


def at_paths(folder: Path, *paths: str, **fields: Any) -> Dataset:
    """The data set of a table in a folder whose rows are files, by these paths."""
    rows = [{"bytes": None, "path": path} for path in paths]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"img": pa.array(rows, kind), "label": range(len(rows))})
    pq.write_table(table, folder / "paths.parquet")
    return open_dataset(parquet(folder / "paths.parquet", **fields))


def test_a_relative_path_is_below_the_tables_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "set" / "images").mkdir(parents=True)
    (tmp_path / "set" / "images" / "a.png").write_bytes(IMAGES[1])
    (tmp_path / "elsewhere" / "images").mkdir(parents=True)
    (tmp_path / "elsewhere" / "images" / "a.png").write_bytes(IMAGES[2])
    monkeypatch.chdir(tmp_path / "elsewhere")
    dataset = at_paths(tmp_path / "set", "images/a.png")
    assert dataset.encoded(0) == IMAGES[1]
    assert pickle.loads(pickle.dumps(dataset)).encoded(0) == IMAGES[1]  # noqa: S301


def test_paths_and_links_leave_the_folder_only_when_allowed(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    outside = tmp_path / "outside.png"
    outside.write_bytes(IMAGES[0])
    (tmp_path / "set" / "link.png").symlink_to(outside)
    (tmp_path / "set" / "x").mkdir()
    for path in (str(outside), "../outside.png", "x/../../outside.png"):
        with pytest.raises(UsageError, match="not below the table's folder: set `outside: true`"):
            at_paths(tmp_path / "set", path)
        assert at_paths(tmp_path / "set", path, outside=True).encoded(0) == IMAGES[0]
    dataset = at_paths(tmp_path / "set", "link.png")
    with pytest.raises(ImageError, match="a link that leads out"):
        dataset.encoded(0)
    assert at_paths(tmp_path / "set", "link.png", outside=True).encoded(0) == IMAGES[0]


def test_tables_of_several_folders_do_not_say_where_a_relative_path_begins(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        at_paths_file = tmp_path / name / "x.parquet"
        rows = pa.array(
            [{"bytes": None, "path": "one.png"}],
            pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        )
        pq.write_table(pa.table({"img": rows, "label": [0]}), at_paths_file)
    with pytest.raises(UsageError, match="no one folder"):
        open_dataset(parquet(tmp_path / "*" / "x.parquet"))


def test_only_regular_files_are_read_and_none_without_end(tmp_path: Path) -> None:
    """A pipe would be waited for, a device has no end, and a sparse file costs nothing to send."""
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    paths = ["pipe.png", "folder.png", "huge.png", "/dev/zero"]
    dataset = at_paths(tmp_path, *paths, outside=True)
    for row, said in enumerate(["no regular file", "no regular file", "larger than", "no regular"]):
        with pytest.raises(ImageError, match=said):
            dataset.encoded(row)


def test_a_row_without_an_image_at_all(tmp_path: Path) -> None:
    kind = pa.struct({"bytes": pa.binary()})
    rows = pa.array([{"bytes": IMAGES[0]}, None], kind)
    pq.write_table(pa.table({"img": rows, "label": [0, 1]}), tmp_path / "a.parquet")
    dataset = open_dataset(parquet(tmp_path / "a.parquet"))
    assert dataset.encoded(0) == IMAGES[0]
    with pytest.raises(ImageError, match="neither bytes nor a path"):
        dataset.encoded(1)


def test_an_image_feature_is_not_decoded_by_datasets(tmp_path: Path) -> None:
    table = datasets.Dataset.from_dict({"image": [Image.fromarray(pixels(4))], "label": [0]})
    table = table.cast_column("image", datasets.Image())
    table.to_parquet(str(tmp_path / "a.parquet"))
    dataset = open_dataset(parquet(tmp_path / "a.parquet"))
    assert dataset.encoded(0).startswith(b"\x89PNG")
    np.testing.assert_array_equal(np.asarray(dataset.image(0)), pixels(4))


def test_files_that_are_not_there_or_broken(tmp_path: Path, file: Path) -> None:
    text = tmp_path / "text.parquet"
    text.write_text("id,label")
    short = tmp_path / "short.parquet"
    short.write_bytes(file.read_bytes()[:-20])
    empty = tmp_path / "empty.parquet"
    empty.touch()
    for broken in (text, short, empty):
        assert f"{broken} is not a readable parquet file: " in mistake(parquet(broken))
    assert "no parquet file matches" in mistake(parquet(tmp_path / "absent.parquet"))
    assert "no parquet file matches" in mistake(parquet(tmp_path / "*.absent"))
    assert "no parquet file matches" in mistake(parquet(tmp_path))


def test_a_file_whose_data_is_damaged(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[4:200] = bytes(196)
    file.write_bytes(data)
    # Of its images nothing is left, of its other columns all.
    dataset = open_dataset(parquet(file))
    with pytest.raises(ImageError, match="the parquet file has a damaged row group 0"):
        dataset.image(0)


def test_files_of_different_columns(tmp_path: Path, file: Path) -> None:
    other = write_parquet(tmp_path / "other.parquet", IMAGES[:1], name=["cat"])
    assert "split 'train': " in mistake(parquet(file, other))


def test_a_table_without_rows(tmp_path: Path, file: Path) -> None:
    empty = write_parquet(tmp_path / "empty.parquet", [], label=pa.array([], pa.int64()))
    assert "empty.parquet have no rows" in mistake(parquet(empty))
    assert "corresponds to no data" in mistake(parquet(file, split="train[:0]"))
    assert len(open_dataset(parquet(empty, file))) == 6


@pytest.mark.parametrize("split", ["train[:2", "train[a:b]", " ", "train+test", "train[:200%]"])
def test_a_split_that_is_none(file: Path, split: str) -> None:
    assert f"split {split!r}" in mistake(parquet(file, split=split))


def test_it_travels_as_paths(file: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    dataset = open_dataset(parquet(Path("set.parquet"), limit={"rows": 2, "choose": "first"}))
    sent = pickle.dumps(dataset)
    assert len(sent) < 1000
    monkeypatch.chdir("/")
    received = pickle.loads(sent)  # noqa: S301
    assert [received.encoded(row) for row in range(2)] == IMAGES[:2]


def test_progress_bars_stay_as_they_were(file: Path, capfd) -> None:
    open_dataset(parquet(file))
    assert not datasets.are_progress_bars_disabled()
    assert capfd.readouterr() == ("", "")


def test_16_bit_and_damaged_rows_beside_good_ones(tmp_path: Path) -> None:
    deep = encode(np.full((3, 3), 65535, dtype=np.uint16))
    file = write_parquet(tmp_path / "a.parquet", [deep, b"no image"], label=[0, 1])
    dataset = open_dataset(parquet(file))
    assert (np.asarray(dataset.image(0)) == 255).all()
    with pytest.raises(ImageError):
        dataset.image(1)
