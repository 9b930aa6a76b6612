"""Rows that are arrays: .npy and parquet files, as they are and as strangers write them."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from egapipe.pipeline.config.sources import ArraysSource, SeveralSource
from egapipe.pipeline.datasets import Dataset, open_dataset
from egapipe.pipeline.errors import EgapipeError, ImageError, UsageError

ROWS = 10


def opened(files: Path | list[Path], **fields: Any) -> Dataset:
    listed = [str(f) for f in files] if isinstance(files, list) else str(files)
    return open_dataset(ArraysSource(kind="arrays", files=listed, **fields))


def saved(folder: Path, name: str, values: Any) -> Path:
    np.save(folder / name, np.asarray(values))
    return folder / name


def sent(dataset: Any) -> Any:
    """As another process has it."""
    return pickle.loads(pickle.dumps(dataset))  # noqa: S301  (of this process)


@pytest.mark.parametrize("kind", ["<i4", ">i8", "u1", "?", "<f2", ">f8"])
def test_rows_of_npy_files_are_the_arrays_in_them(tmp_path: Path, kind: str) -> None:
    values = (10 * np.random.default_rng(0).random((ROWS, 3, 4))).astype(kind)
    parts = [saved(tmp_path, f"{n}.npy", part) for n, part in enumerate(np.split(values, [3, 4]))]
    dataset = opened(parts, split="some")
    assert dataset.arrays is not None
    wanted = "float32" if values.dtype.kind == "f" else "int64"
    assert (dataset.arrays.type.shape, dataset.arrays.type.dtype) == ((3, 4), wanted)
    assert dataset.arrays.variants == 1
    for row in range(ROWS):
        found = dataset.array(row)
        assert found.dtype == wanted
        assert np.array_equal(found[0], values[row].astype(wanted))
    assert list(dataset.keys)[:2] == ["some/00000000", "some/00000001"]
    assert dataset.classes is None
    assert (dataset.labels == -1).all()


def test_the_first_axis_of_a_row_may_count_variants(tmp_path: Path) -> None:
    values = np.arange(ROWS * 6.0).reshape(ROWS, 3, 2)
    dataset = opened(saved(tmp_path, "x.npy", values), variants=True)
    assert dataset.arrays is not None
    assert (dataset.arrays.variants, dataset.arrays.type.shape) == (3, (2,))
    assert np.array_equal(dataset.array(4), values[4])


def test_labels_are_whole_numbers_of_a_file_of_their_own(tmp_path: Path) -> None:
    file = saved(tmp_path, "x.npy", np.zeros((4, 2)))
    labels = saved(tmp_path, "y.npy", [7, -1, 3, 7])
    dataset = opened(file, labels=str(labels))
    assert (dataset.classes, dataset.labels.tolist()) == (["3", "7"], [1, -1, 0, 1])
    named = opened(file, labels=str(saved(tmp_path, "z.npy", [0, 1, 1, 0])), class_names=["a", "b"])
    assert named.classes == ["a", "b"]


@pytest.mark.parametrize("form", ["lists", "nested", "tensors", "large"])
def test_rows_of_parquet_files_are_the_arrays_of_a_column(tmp_path: Path, form: str) -> None:
    values = np.arange(ROWS * 6.0).reshape(ROWS, 3, 2)
    column: Any = {
        "lists": lambda: pa.array(values.reshape(ROWS, 6).tolist()),
        "nested": lambda: pa.array(values.tolist()),
        "large": lambda: pa.array(values.tolist(), pa.large_list(pa.large_list(pa.float32()))),
        "tensors": lambda: pa.FixedShapeTensorArray.from_numpy_ndarray(values),
    }[form]()
    names = [f"k{n}" for n in range(ROWS)]
    table = pa.table({"id": names, "x": column, "label": ["a", "b"] * (ROWS // 2)})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=4)
    dataset = opened(tmp_path / "t.parquet", key_column="id", label_column="label")
    assert list(dataset.keys) == names
    assert (dataset.classes, dataset.labels.tolist()) == (["a", "b"], [0, 1] * (ROWS // 2))
    for row in (0, 3, 4, 9):
        assert np.array_equal(dataset.array(row)[0].reshape(-1), values[row].reshape(-1))


def test_a_row_that_is_no_such_array_is_that_rows_fault(tmp_path: Path) -> None:
    rows = [[1.0, 2.0], [1.0], None, [1.0, None], [float("nan"), 1.0], [1e300, 1.0]]
    pq.write_table(pa.table({"x": rows}), tmp_path / "t.parquet")
    dataset = opened(tmp_path / "t.parquet")
    reasons = ["", r"shape is \[1\]", "missing", "1 of its numbers", "not finite", "not finite"]
    assert np.array_equal(dataset.array(0), [[1.0, 2.0]])
    for row, reason in enumerate(reasons[1:], start=1):
        with pytest.raises(ImageError, match=reason):
            dataset.array(row)
    ragged = pa.array([[[1], [2]], [[1], [2, 3]]])
    pq.write_table(pa.table({"x": ragged}), tmp_path / "r.parquet")
    with pytest.raises(ImageError, match="several lengths"):
        opened(tmp_path / "r.parquet").array(1)


def test_another_process_opens_the_same(tmp_path: Path) -> None:
    values = np.arange(ROWS * 2).reshape(ROWS, 2)
    dataset = opened(saved(tmp_path, "x.npy", values), limit=4)
    there = sent(dataset)
    assert len(there) == 4
    for row in range(4):
        assert np.array_equal(there.array(row), dataset.array(row))
    assert there.fingerprint() == dataset.fingerprint()
    workers = sent(dataset.for_workers(dataset.keys))
    assert np.array_equal(workers.array(3), dataset.array(3))


def test_other_numbers_are_other_content(tmp_path: Path) -> None:
    values = np.arange(ROWS * 2).reshape(ROWS, 2)
    first = opened(saved(tmp_path, "x.npy", values)).fingerprint()
    values[7, 1] += 1
    assert opened(saved(tmp_path, "y.npy", values)).fingerprint() != first


def test_several_sources_of_one_shape_are_one(tmp_path: Path) -> None:
    values = np.arange(ROWS * 2).reshape(ROWS, 2)
    parts: list[Any] = [
        ArraysSource(kind="arrays", files=[str(saved(tmp_path, f"{n}.npy", part))], split=f"s{n}")
        for n, part in enumerate(np.split(values, 2))
    ]
    dataset = open_dataset(SeveralSource(kind="several", sources=parts))
    assert np.array_equal(dataset.array(7)[0], values[7])
    with pytest.raises(UsageError, match="holds arrays"):
        dataset.image(0)
    again = sent(dataset.for_workers(dataset.keys))
    assert np.array_equal(again.array(7)[0], values[7])
    other = ArraysSource(kind="arrays", files=[str(saved(tmp_path, "o.npy", np.zeros((2, 3))))])
    digits: Any = {"kind": "digits"}
    for wrong in (other, digits):
        source = SeveralSource.model_validate({"kind": "several", "sources": [parts[0], wrong]})
        with pytest.raises(UsageError, match="not of one kind"):
            open_dataset(source)


HOSTILE = {
    "objects": (lambda f: np.save(f, np.array([{}, None], object)), "not numbers"),
    "text": (lambda f: np.save(f, np.array(["a", "b"])), "holds <U1"),
    "complex": (lambda f: np.save(f, np.zeros((2, 2), complex)), "holds complex128"),
    "unsigned": (lambda f: np.save(f, np.zeros((2, 2), np.uint64)), "holds uint64"),
    "scalars": (lambda f: np.save(f, np.zeros(4)), "one number a row"),
    "nothing": (lambda f: np.save(f, np.zeros((0, 2))), "no rows"),
    "columns first": (lambda f: np.save(f, np.asfortranarray(np.eye(3))), "column after column"),
    "archive": (lambda f: f.write_bytes(b"PK\x03\x04 of some kind"), "cannot be read as .npy"),
    "empty": (lambda f: f.write_bytes(b""), "cannot be read as .npy"),
    "future": (lambda f: f.write_bytes(b"\x93NUMPY\x09\x00" + bytes(64)), "cannot be read as .npy"),
    "code": (
        lambda f: f.write_bytes(b"\x93NUMPY\x01\x00\x14\x00__import__('os')   \n"),
        "cannot be read as .npy",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_of_something_else_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    write, reason = HOSTILE[name]
    write(tmp_path / "x.npy")
    with pytest.raises(EgapipeError, match=reason) as refused:
        opened(tmp_path / "x.npy")
    assert "\n" not in str(refused.value)


def test_a_truncated_file_is_refused_and_one_that_shrinks_loses_rows(tmp_path: Path) -> None:
    file = saved(tmp_path, "x.npy", np.zeros((ROWS, 4)))
    dataset = opened(file)
    whole = file.read_bytes()
    file.write_bytes(whole[:-8])
    with pytest.raises(ImageError, match="ends 8 bytes before"):
        dataset.array(ROWS - 1)
    with pytest.raises(UsageError, match="its header asks for"):
        opened(file)
    file.write_bytes(whole + b"more")
    with pytest.raises(UsageError, match="its header asks for"):
        opened(file)


def test_files_labels_and_columns_that_do_not_fit_are_named(tmp_path: Path) -> None:
    file = saved(tmp_path, "x.npy", np.zeros((4, 2)))
    with pytest.raises(UsageError, match="rows of one shape"):
        opened([file, saved(tmp_path, "y.npy", np.zeros((4, 3)))])
    with pytest.raises(UsageError, match="4 rows and 3 labels"):
        opened(file, labels=str(saved(tmp_path, "l.npy", [0, 1, 2])))
    with pytest.raises(UsageError, match="labels are whole numbers"):
        opened(file, labels=str(saved(tmp_path, "f.npy", [0.5] * 4)))
    with pytest.raises(UsageError, match="-7: -1 is a row without"):
        opened(file, labels=str(saved(tmp_path, "n.npy", [0, 1, 2, -7])))
    with pytest.raises(UsageError, match=r"no \.npy file matches"):
        opened(tmp_path / "none.npy")
    table = pa.table({"x": [[1], [2]], "y": [[1], [2]], "id": ["a", "a"], "t": [["a"], ["b"]]})
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(UsageError, match=r"several columns of arrays \(x, y, t\): set column"):
        opened(tmp_path / "t.parquet")
    with pytest.raises(UsageError, match="have the same key 'a'"):
        opened(tmp_path / "t.parquet", column="x", key_column="id")
    with pytest.raises(UsageError, match="'id' is no column of arrays"):
        opened(tmp_path / "t.parquet", column="id")
    with pytest.raises(UsageError, match="label_column 'z' is not a column"):
        opened(tmp_path / "t.parquet", column="x", label_column="z")
    with pytest.raises(UsageError, match="'t' holds"):
        opened(tmp_path / "t.parquet", column="t")


def test_settings_of_the_other_format_are_refused() -> None:
    for fields, reason in (
        ({"files": ["a.npy", "b.parquet"]}, "not both"),
        ({"files": ["a.npy"], "column": "x"}, "column is for parquet"),
        ({"files": ["a.parquet"], "labels": "y.npy"}, "set label_column"),
    ):
        with pytest.raises(ValidationError, match=reason):
            ArraysSource.model_validate({"kind": "arrays", **fields})
