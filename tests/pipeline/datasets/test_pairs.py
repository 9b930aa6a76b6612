"""Files of pairs: what is in them, and what is said of those that cannot be used."""

import os
import string
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from egapipe.pipeline.datasets.decoding import reading
from egapipe.pipeline.datasets.pairs import Pairs, pairs_digest, read_pairs
from egapipe.pipeline.errors import EgapipeError, MachineError, UsageError
from tests.objectstore import S3, s3, s3_server

__all__ = ["s3", "s3_server"]

KEYS = st.text(string.ascii_letters + "é/\0 \n", max_size=4)


def write(file: Path, **columns: Any) -> str:
    pq.write_table(pa.table(columns), file)
    return str(file)


def plain(pairs: Pairs) -> list[tuple[str, str, float]]:
    columns = (pairs.first.to_pylist(), pairs.second.to_pylist(), pairs.scores.tolist())
    return list(zip(*columns, strict=True))


def test_pairs_are_read_with_their_scores_or_with_one(tmp_path: Path) -> None:
    first, second = ["a", "b", "é"], ["b", "", "c"]
    file = write(tmp_path / "pairs", first=first, second=second)
    assert plain(read_pairs(file)) == [("a", "b", 1), ("b", "", 1), ("é", "c", 1)]
    file = write(tmp_path / "scored", other=[1, 2, 3], score=[0, -2, 3], second=second, first=first)
    assert plain(read_pairs(file)) == [("a", "b", 0), ("b", "", -2), ("é", "c", 3)]


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())],
    ids=str,
)
def test_keys_may_be_of_any_type_of_text(tmp_path: Path, kind: pa.DataType) -> None:
    keys, others = (pa.array(one).cast(kind) for one in (["a", "b"], ["b", "a"]))
    file = write(tmp_path / "pairs", first=keys, second=others)
    assert plain(read_pairs(file)) == [("a", "b", 1), ("b", "a", 1)]


def test_numbers_are_keys_as_those_of_a_table_are(tmp_path: Path) -> None:
    file = write(tmp_path / "pairs", first=[1, 20], second=[20, -3], score=pa.array([1, 2]))
    assert plain(read_pairs(file)) == [("1", "20", 1), ("20", "-3", 2)]


@given(st.lists(st.tuples(KEYS, KEYS, st.floats(-9, 9)), min_size=1), st.integers(1, 5))
def test_the_digest_is_of_what_is_said_however_it_is_written(
    pairs: list[tuple[str, str, float]], rows: int
) -> None:
    first, second, scores = (pa.array(column) for column in zip(*pairs, strict=True))
    whole = Pairs(first.cast(pa.large_string()), second.cast(pa.large_string()), np.array(scores))
    # A part of longer arrays, which begins within their memory.
    longer = [pa.concat_arrays([one[:1], one]).cast(pa.large_string())[1:] for one in whole[:2]]
    assert Pairs(longer[0], longer[1], whole.scores).digest == whole.digest
    changed = whole._replace(scores=whole.scores + 1)
    moved = whole._replace(first=whole.second, second=whole.first)
    assert changed.digest != whole.digest
    assert (moved.digest == whole.digest) == (first == second)


def test_the_digest_of_a_file_is_that_of_its_pairs(tmp_path: Path) -> None:
    table = pa.table({"first": ["a", "bc"], "second": ["ab", "c"]})
    pq.write_table(table, tmp_path / "one")
    more = table.append_column("score", pa.array([1.0, 1.0])).append_column("x", pa.nulls(2))
    pq.write_table(more, tmp_path / "two", compression="zstd", row_group_size=1)
    digests = {pairs_digest(str(tmp_path / name)) for name in ("one", "two")}
    assert digests == {read_pairs(str(tmp_path / "one")).digest}
    write(tmp_path / "two", first=["ab", "c"], second=["ab", "c"])
    assert pairs_digest(str(tmp_path / "two")) not in digests


HOSTILE = {
    "no pairs": (
        {"first": pa.array([], pa.string()), "second": pa.array([], pa.string())},
        "has no pairs: name another file",
    ),
    "a column is missing": (
        {"first": ["a"], "b": ["b"]},
        "has no column 'second': it has first, b",
    ),
    "no columns that are meant": ({"x": [1]}, "has no column 'first': it has x"),
    "a key is null": ({"first": ["a", "b"], "second": ["b", None]}, "second has no key in row 1"),
    "all keys are null": (
        {"first": pa.nulls(2), "second": ["a", "b"]},
        "first has no key in row 0",
    ),
    "keys are no text": ({"first": [0.5], "second": ["b"]}, "first holds double, keys are text"),
    "keys are lists": ({"first": [["a"]], "second": ["b"]}, "first holds list<"),
    "a score is NaN": (
        {"first": ["a", "b"], "second": ["b", "c"], "score": [1.0, float("nan")]},
        "score is nan in row 1, scores are finite numbers",
    ),
    "a score is infinite": (
        {"first": ["a"], "second": ["b"], "score": [float("-inf")]},
        "score is -inf in row 0",
    ),
    "a score is beyond float32": (
        {"first": ["a"], "second": ["b"], "score": [1e39]},
        r"score is 1e\+39 in row 0",
    ),
    "a score is null": (
        {"first": ["a"], "second": ["b"], "score": pa.array([None], pa.int64())},
        "score is null in row 0",
    ),
    "scores are no numbers": (
        {"first": ["a"], "second": ["b"], "score": ["high"]},
        "score holds string, scores are numbers",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_cannot_be_used_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    columns, said = HOSTILE[name]
    file = write(tmp_path / "pairs", **columns)
    with pytest.raises(UsageError, match=said) as caught:
        read_pairs(file)
    assert str(caught.value).startswith(f"dataset.pairs: {file}")
    assert "\n" not in str(caught.value)


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    columns = [pa.array(["a"]), pa.array(["b"]), pa.array(["c"])]
    table = pa.Table.from_arrays(columns, ["first", "second", "first"])
    pq.write_table(table, tmp_path / "pairs")
    with pytest.raises(UsageError, match="has the column 'first' twice"):
        read_pairs(str(tmp_path / "pairs"))


def test_text_that_is_no_unicode_is_refused(tmp_path: Path) -> None:
    bad = pa.array([b"\xff"]).view(pa.string())
    file = write(tmp_path / "pairs", first=bad, second=["b"])
    with pytest.raises(UsageError, match="first holds text that is no UTF-8"):
        read_pairs(file)


@pytest.mark.parametrize("what", ["nothing", "a folder", "text", "cut", "a pipe"])
def test_what_is_no_parquet_file_is_refused(tmp_path: Path, what: str) -> None:
    file = tmp_path / "pairs"
    if what == "a folder":
        file.mkdir()
    elif what == "a pipe":
        os.mkfifo(file)
    elif what != "nothing":
        write(file, first=["a"] * 99, second=["b"] * 99)
        file.write_bytes(b"a,b" if what == "text" else file.read_bytes()[:-9])
    said = "is not there" if what == "nothing" else "is no readable parquet file"
    with pytest.raises(UsageError, match=said) as caught:
        read_pairs(str(file))
    assert "\n" not in str(caught.value)


def test_pairs_may_lie_elsewhere(tmp_path: Path, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PAUSES", (0.0,))
    file = write(tmp_path / "pairs", first=["a"], second=["b"])
    s3.client().put_object(Bucket=s3.bucket, Key="x/pairs", Body=Path(file).read_bytes())
    assert plain(read_pairs(s3.url("x/pairs"))) == [("a", "b", 1)]
    assert pairs_digest(s3.url("x/pairs")) == pairs_digest(file)
    with pytest.raises(UsageError, match="is not there"):
        read_pairs(s3.url("x/none"))
    with pytest.raises(MachineError) as caught:
        read_pairs("s3://no-such-bucket-of-this-test/pairs")
    assert isinstance(caught.value, EgapipeError)
    assert "\n" not in str(caught.value)
