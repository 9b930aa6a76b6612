"""Keys that are made when they are asked for are the keys of a list."""

import pickle
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from egapipe.pipeline import keys as module
from egapipe.pipeline.keys import JoinedKeys, Keys, NumberedKeys, TextKeys, repeated, taken

TEXTS = st.lists(st.text(max_size=3), max_size=8)


def chunked(lists: Sequence[list[str]]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(one, pa.string()) for one in lists], pa.string())


def numbered(ranges: list[tuple[int, int]]) -> tuple[Keys, list[str]]:
    parts = [(f"p{i}/", range(start, start + count)) for i, (start, count) in enumerate(ranges)]
    made = [f"{prefix}{n:03d}" for prefix, numbers in parts for n in numbers]
    return NumberedKeys(parts, 3), made


KEYS = st.one_of(
    st.lists(TEXTS, max_size=3).map(
        lambda some: (TextKeys(chunked(some)), [k for one in some for k in one])
    ),
    TEXTS.map(lambda some: (TextKeys.of(some), some)),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 4)), max_size=3).map(numbered),
    st.lists(TEXTS, max_size=3).map(
        lambda some: (
            JoinedKeys([(f"{i}:", one) for i, one in enumerate(some)]),
            [f"{i}:{key}" for i, one in enumerate(some) for key in one],
        )
    ),
)


@given(made=KEYS, data=st.data())
def test_they_are_those_of_a_list(made: tuple[Keys, list[str]], data: st.DataObject) -> None:
    keys, expected = made
    assert len(keys) == len(expected)
    assert list(keys) == expected
    assert keys == expected
    assert keys != [*expected, ""]
    assert pickle.loads(pickle.dumps(keys)) == expected  # noqa: S301
    cut = data.draw(st.slices(len(expected)))
    assert keys[cut] == expected[cut]
    if expected:
        row = data.draw(st.integers(-len(expected), len(expected) - 1))
        assert keys[row] == expected[row]
        rows = data.draw(st.lists(st.integers(0, len(expected) - 1)))
        assert taken(keys, np.array(rows, np.int64)) == [expected[row] for row in rows]
    for row in (len(expected), -len(expected) - 1):
        with pytest.raises(IndexError):
            keys[row]


def first_repeated(keys: Sequence[str]) -> tuple[int, int] | None:
    seen: dict[str, int] = {}
    for row, key in enumerate(keys):
        if seen.setdefault(key, row) != row:
            return seen[key], row
    return None


@given(
    keys=st.lists(st.text(alphabet="ab", max_size=4), max_size=12), values=st.integers(1, 1 << 40)
)
def test_a_key_twice_is_found_whatever_the_hashes_are(keys: list[str], values: int) -> None:
    """Equal hashes of different keys are told apart."""
    assert repeated(keys) == first_repeated(keys)
    assert repeated(keys, lambda key: hash(key) % values) == first_repeated(keys)
    assert repeated(keys, lambda key: 7) == first_repeated(keys)


def test_blocks_follow_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 3)
    keys = [f"k{n % 7}" for n in range(10)]
    assert list(TextKeys.of(keys)) == keys
    assert repeated(keys) == (0, 7)
    assert repeated(keys[:7]) is None
