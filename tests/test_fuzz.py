"""A short run of tests/fuzz.py: sound files are read, damaged ones are one line."""

from pathlib import Path

import pytest

from tests.fuzz import falls_out, fuzz, readers

READERS = readers()


@pytest.mark.parametrize("name", READERS)
def test_a_sound_file_is_read(name: str, tmp_path: Path) -> None:
    READERS[name].read(READERS[name].whole, tmp_path)


@pytest.mark.parametrize("name", READERS)
def test_changed_bytes_are_one_line(name: str) -> None:
    _, found = fuzz(READERS[name], seconds=60, most=100)
    assert not found


def test_what_falls_out_is_found(tmp_path: Path) -> None:
    def read(data: bytes, folder: object) -> None:
        raise IndexError("a reader's bug")

    assert "IndexError" in str(falls_out(READERS["npy"]._replace(read=read), b"", tmp_path))
