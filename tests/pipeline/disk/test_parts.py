"""A file that is made part by part: in any order, taken up again, never believed of another."""

import tempfile
from io import FileIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egapipe.pipeline.disk.parts import Parts

COUNT, LENGTH = 7, 5


def opened(path: Path) -> FileIO:
    path.touch()
    return FileIO(path, "r+")


def data(part: int) -> bytes:
    return bytes([part + 1]) * LENGTH


@settings(deadline=None, max_examples=30)
@given(order=st.permutations(range(COUNT)), stop=st.integers(0, COUNT), noted=st.integers(0, COUNT))
def test_what_was_noted_stays_and_the_rest_is_made(order: list[int], stop: int, noted: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        with opened(path) as file:
            parts = Parts(file, COUNT * LENGTH, COUNT, b"this")
            for part in order[:stop]:
                parts.write(data(part), part * LENGTH)
            parts.settle(order[: min(stop, noted)])
        with opened(path) as file:
            parts = Parts(file, COUNT * LENGTH, COUNT, b"this")
            assert parts.done == set(order[: min(stop, noted)])
            for part in set(range(COUNT)) - parts.done:
                parts.write(data(part), part * LENGTH)
            parts.finish()
        assert path.read_bytes() == b"".join(map(data, range(COUNT)))


@pytest.mark.parametrize(
    ("size", "count", "identity"), [(35, 7, b"other"), (34, 7, b"this"), (35, 6, b"this")]
)
def test_parts_of_another_file_are_none_of_this(
    tmp_path: Path, size: int, count: int, identity: bytes
) -> None:
    with opened(tmp_path / "file") as file:
        Parts(file, 35, 7, b"this").settle(range(7))
    with opened(tmp_path / "file") as file:
        assert Parts(file, size, count, identity).done == set()


@pytest.mark.parametrize("left", [b"", b"x" * 10, b"x" * 35, b"x" * (35 + 32 + 7)])
def test_what_something_else_left_is_let_go(tmp_path: Path, left: bytes) -> None:
    (tmp_path / "file").write_bytes(left)
    with opened(tmp_path / "file") as file:
        assert Parts(file, 35, 7, b"this").done == set()
    assert b"x" not in (tmp_path / "file").read_bytes()[:35]
