"""A short run of tests/fuzz.py: sound files are read, damaged ones are one line."""

from pathlib import Path

import numpy as np
import pytest

from tests.fuzz import changed, falls_out, fuzz, readers

READERS = readers()


@pytest.mark.parametrize("name", READERS)
def test_a_sound_file_is_read(name: str, tmp_path: Path) -> None:
    READERS[name].read(READERS[name].whole, tmp_path)


@pytest.mark.parametrize("name", READERS)
def test_changed_bytes_are_one_line(name: str) -> None:
    _, found = fuzz(READERS[name], seconds=60, most=100)
    assert not found


# What long runs found that a short one does not: reader, seed and number of the input.
@pytest.mark.parametrize(
    ("name", "seed", "number"), [("npy", 1, 34128), ("pointer", 1, 1227), ("parquet", 0, 1880)]
)
def test_what_long_runs_found_stays_mended(
    name: str, seed: int, number: int, tmp_path: Path
) -> None:
    data = changed(READERS[name].whole, np.random.default_rng([seed, number]))
    assert falls_out(READERS[name], data, tmp_path) is None


def test_what_falls_out_is_found(tmp_path: Path) -> None:
    def read(data: bytes, folder: object) -> None:
        raise IndexError("a reader's bug")

    assert "IndexError" in str(falls_out(READERS["npy"]._replace(read=read), b"", tmp_path))
