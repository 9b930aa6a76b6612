"""A file is whole, or what was there before."""

import os
from pathlib import Path

import pytest

from egapipe.pipeline.disk.files import replace_file, whole_file
from egapipe.pipeline.errors import EgapipeError
from tests.pipeline.store.kill import killed_before


def test_a_file_is_there_when_the_block_has_ended(tmp_path: Path) -> None:
    with whole_file(tmp_path / "a") as file:
        file.write(b"new")
        assert [name.startswith("a.") for name in os.listdir(tmp_path)] == [True]
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"new"


def write_half(path: Path, partial: Path, error: type[BaseException]) -> None:
    with whole_file(path, partial) as file:
        file.write(b"half")
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_block_that_raises_leaves_what_was_there(
    tmp_path: Path, error: type[BaseException]
) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(error):
        write_half(tmp_path / "a", tmp_path / "beside", error)
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_a_killed_process_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    step = 0
    while killed_before(step, lambda: replace_file(tmp_path / "a", b"new")):
        assert (tmp_path / "a").read_bytes() == b"old"
        step += 1
    # Opening, flushing, renaming.
    assert step == 3
    assert (tmp_path / "a").read_bytes() == b"new"


def test_a_folder_that_is_missing_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(EgapipeError, match=r"^cannot write .*/none/a: No such file or directory$"):
        replace_file(tmp_path / "none" / "a", b"new")
